"""gradsim measures exactly how gradients vanish and explode in deep and recurrent networks."""

from gradsim import inspection, plot, theory
from gradsim.activations import ACTIVATIONS, Activation
from gradsim.analysis.correlation_depth import correlation_depth
from gradsim.analysis.critical import critical
from gradsim.analysis.growth import growth, zero_crossing
from gradsim.analysis.horizon import horizon
from gradsim.analysis.precision import precision_horizon
from gradsim.compilation_cache import enable_compilation_cache
from gradsim.critical_start import CriticalInitializer, critical_initializer
from gradsim.digits import digits, digits_sequence
from gradsim.engine.check import check
from gradsim.engine.factors import LogSingularValues
from gradsim.engine.norms import jacobian_norms
from gradsim.engine.rounding import rounded_once
from gradsim.engine.statistic import Statistic
from gradsim.engine.statistics import STATISTICS
from gradsim.initializers import INITIALIZERS, Initializer
from gradsim.inspection.inspect import inspect
from gradsim.inspection.report import report
from gradsim.inspection.tune import Tuned, tune
from gradsim.networks.depth.attention import attention
from gradsim.networks.depth.batchnorm import batchnorm
from gradsim.networks.depth.convolutional import convolutional
from gradsim.networks.depth.feedforward import feedforward
from gradsim.networks.depth.mirrored import mirrored
from gradsim.networks.depth.normalized import layernorm
from gradsim.networks.depth.residual import highway, residual
from gradsim.networks.depth.transformer import transformer
from gradsim.networks.network import Network
from gradsim.networks.pair import pair
from gradsim.networks.time.antisymmetric import antisymmetric_rnn
from gradsim.networks.time.delta_rule import delta_net, rwkv7
from gradsim.networks.time.elementwise import indrnn, min_gru, min_lstm
from gradsim.networks.time.gated import gru, lstm
from gradsim.networks.time.linear_attention import retnet, rwkv6
from gradsim.networks.time.linear_recurrence import linear_recurrence
from gradsim.networks.time.oscillators import cornn
from gradsim.networks.time.recurrent import minimal_rnn, vanilla_rnn
from gradsim.networks.time.slstm import slstm
from gradsim.networks.time.state_space import mamba, mamba2, s4d
from gradsim.networks.time.unitary import unitary_rnn
from gradsim.networks.time.xlstm import mlstm
from gradsim.scaled import Scaled
from gradsim.sweeps.concat import concat
from gradsim.sweeps.lyapunov import lyapunov_exponents
from gradsim.sweeps.spectra import log_singular_values
from gradsim.sweeps.stores.opening import open_store as open
from gradsim.sweeps.sweep import partial_products, sweep
from gradsim.tracking.records import gradient_records, gradient_summary
from gradsim.tracking.track import track_gradients
from gradsim.training.tasks import copy_task
from gradsim.training.train import train

__all__ = [
    "ACTIVATIONS",
    "INITIALIZERS",
    "STATISTICS",
    "Activation",
    "CriticalInitializer",
    "Initializer",
    "LogSingularValues",
    "Network",
    "Scaled",
    "Statistic",
    "Tuned",
    "antisymmetric_rnn",
    "attention",
    "batchnorm",
    "check",
    "concat",
    "convolutional",
    "copy_task",
    "cornn",
    "correlation_depth",
    "critical",
    "critical_initializer",
    "delta_net",
    "digits",
    "digits_sequence",
    "enable_compilation_cache",
    "feedforward",
    "gradient_records",
    "gradient_summary",
    "growth",
    "gru",
    "highway",
    "horizon",
    "indrnn",
    "inspect",
    "inspection",
    "jacobian_norms",
    "layernorm",
    "linear_recurrence",
    "log_singular_values",
    "lstm",
    "lyapunov_exponents",
    "mamba",
    "mamba2",
    "min_gru",
    "min_lstm",
    "minimal_rnn",
    "mirrored",
    "mlstm",
    "open",
    "pair",
    "partial_products",
    "plot",
    "precision_horizon",
    "report",
    "residual",
    "retnet",
    "rounded_once",
    "rwkv6",
    "rwkv7",
    "s4d",
    "slstm",
    "sweep",
    "theory",
    "track_gradients",
    "train",
    "transformer",
    "tune",
    "unitary_rnn",
    "vanilla_rnn",
    "zero_crossing",
]
