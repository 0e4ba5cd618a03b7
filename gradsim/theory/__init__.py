"""Mean-field theory beside every measurement: one file a theory."""

from gradsim.theory.edge import edge_of_chaos, explain_edge
from gradsim.theory.feedforward import FixedPoint, correlation_map, decorrelation_map, feedforward, length_map
from gradsim.theory.finite_width import LogGain, log_gain
from gradsim.theory.normalized import batchnorm_growth, pre_norm_exponent
from gradsim.theory.transient import Transient, spectrum_variance, transient

__all__ = [
    "FixedPoint",
    "LogGain",
    "Transient",
    "batchnorm_growth",
    "correlation_map",
    "decorrelation_map",
    "edge_of_chaos",
    "explain_edge",
    "feedforward",
    "length_map",
    "log_gain",
    "pre_norm_exponent",
    "spectrum_variance",
    "transient",
]
