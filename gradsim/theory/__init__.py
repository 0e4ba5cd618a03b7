"""Mean-field theory beside every measurement: one file a theory."""

from gradsim.theory.edge import edge_of_chaos, explain_edge
from gradsim.theory.feedforward import FixedPoint, correlation_map, decorrelation_map, feedforward, length_map
from gradsim.theory.finite_width import LogGain, log_gain
from gradsim.theory.fixed_attention import fixed_attention
from gradsim.theory.gated import GatedMLP, gated_mlp
from gradsim.theory.memory import log_memory
from gradsim.theory.normalized import batchnorm_growth, pre_norm_exponent, weighted_skip_growth
from gradsim.theory.recurrent import (
    LSTMFixedPoint,
    RecurrentFixedPoint,
    gru,
    lstm,
    minimal_rnn,
    recurrent_edge,
    vanilla_rnn,
)
from gradsim.theory.residual import ResidualPath, residual, tanh_residual_growth
from gradsim.theory.residual_scalings import ResidualBlock, residual_block, residual_stack
from gradsim.theory.singular_values import SingularValues, singular_values
from gradsim.theory.softmax import SoftmaxMoments, softmax_moments
from gradsim.theory.transformer import TransformerPath, transformer
from gradsim.theory.transient import Transient, spectrum_variance, transient
from gradsim.theory.two_inputs import TwoInputs, gradient_correlation

__all__ = [
    "FixedPoint",
    "GatedMLP",
    "LSTMFixedPoint",
    "LogGain",
    "RecurrentFixedPoint",
    "ResidualBlock",
    "ResidualPath",
    "SingularValues",
    "SoftmaxMoments",
    "TransformerPath",
    "Transient",
    "TwoInputs",
    "batchnorm_growth",
    "correlation_map",
    "decorrelation_map",
    "edge_of_chaos",
    "explain_edge",
    "feedforward",
    "fixed_attention",
    "gated_mlp",
    "gradient_correlation",
    "gru",
    "length_map",
    "log_gain",
    "log_memory",
    "lstm",
    "minimal_rnn",
    "pre_norm_exponent",
    "recurrent_edge",
    "residual",
    "residual_block",
    "residual_stack",
    "singular_values",
    "softmax_moments",
    "spectrum_variance",
    "tanh_residual_growth",
    "transformer",
    "transient",
    "vanilla_rnn",
    "weighted_skip_growth",
]
