"""A model that is not ours, measured layer by layer: its pullback interpreted in block floating point."""

from gradsim.inspection.taps import tap

__all__ = ["tap"]
