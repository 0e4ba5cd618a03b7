"""Datasets as `gradsim.inspect` returns them, made by hand; and a deep model for it, and inputs."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray
from flax import nnx
from jax import Array

from gradsim.inspection.formats import FORMATS, LOSS_SCALE, limits

LN2 = float(np.log(2.0))


def inspected(
    gradient: Sequence[float] | np.ndarray,
    *,
    activation: Any = 0.0,
    layers: Sequence[str] | None = None,
    types: Any = "Linear",
    by_step: np.ndarray | None = None,
    **variables: Any,
) -> xarray.Dataset:
    """Rows with these log norms of gradients, all of whose entries are e**(log − 3); `variables` replace what follows
    from that: numbers for all layers, or an array."""
    logs = np.asarray(gradient, float)
    n = logs.size
    names = list(layers) if layers is not None else [f"layers.{i}" for i in range(n)]
    kinds = [types] * n if isinstance(types, str) else list(types)
    parameters = [f"{name}.kernel" for name in names]
    floor = np.array([limits(name).subnormal - 1 for name in FORMATS]) * LN2
    top = np.array([limits(name).largest for name in FORMATS]) * LN2
    scale = np.log(LOSS_SCALE)
    with np.errstate(invalid="ignore"):
        entries = logs[:, None] - 3
        shares = {
            "lost": entries <= floor,
            "lost_scaled": entries + scale <= floor,
            "overflow": entries > top,
            "overflow_scaled": entries + scale > top,
        }
        plain = np.where(logs > -88, logs, -np.inf)
    columns: dict[str, Any] = {
        "log_activation": activation, "dead": 0.0, "not_finite": 0.0, "log_gradient": logs,
        "log_float_gradient": plain, "zero_gradient": np.where(logs == -np.inf, 1.0, 0.0), "not_finite_gradient": 0.0,
    }  # fmt: skip
    attrs = {"model": "Net", "dtype": "float32", "loss": 1.0, "loss_scale": LOSS_SCALE, "entries_lost": 0,
             "not_linear": "", "first_not_finite": "", "first_not_finite_gradient": ""}  # fmt: skip
    columns.update({name: value for name, value in variables.items() if name not in attrs})
    data: dict[str, Any] = {name: ("layer", np.broadcast_to(value, n)) for name, value in columns.items()}
    data |= {name: (("layer", "format"), share.astype(float)) for name, share in shares.items()}
    data |= {f"parameter_{name}": (("parameter", "format"), share.astype(float)) for name, share in shares.items()}
    data |= {"log_parameter": ("parameter", np.zeros(n)), "log_parameter_gradient": ("parameter", logs + 1)}
    data["log_float_parameter_gradient"] = ("parameter", plain + 1)
    coordinates: dict[str, Any] = {
        "layer": names, "type": ("layer", kinds), "parameter": parameters, "format": list(FORMATS)
    }  # fmt: skip
    if by_step is not None:
        data["log_gradient_by_step"] = (("layer", "step"), by_step)
        data["log_activation_by_step"] = (("layer", "step"), np.zeros_like(by_step))
        coordinates["step"] = np.arange(1, by_step.shape[1] + 1)
    attrs.update({name: value for name, value in variables.items() if name in attrs})
    return xarray.Dataset(data, coordinates, attrs=attrs)


def drawn(seed: int, *shape: int) -> Array:
    """Standard normal numbers of numpy's: nothing to compile."""
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


class Sigmoids(nnx.Module):
    """Dense sigmoid layers."""

    def __init__(self, depth: int, width: int) -> None:
        rngs = nnx.Rngs(0)
        self.layers = nnx.List([nnx.Linear(width, width, rngs=rngs) for _ in range(depth)])

    def __call__(self, x: Array) -> Array:
        for layer in self.layers:
            x = nnx.sigmoid(layer(x))
        return x


def inspections(data: str, depth: int, *, after: bool = False, scans: int = 0) -> list[xarray.Dataset]:
    """A model that vanishes, and after a cure: blocks of two layers, or layers each in a scan of 100 steps."""
    rate = {"usual": -1.5, "flat": 0.0, "huge": -60.0}[data]
    names = [f"encoder.transformer_blocks.{i}{part}" for i in range(depth) for part in (".attention.query", "")]
    found = []
    for slope in (rate, 0.02)[: 1 + after]:
        if scans:
            cells = [f"recurrent_layer_{i}" for i in range(scans)]
            by_step = np.stack([slope * np.arange(depth)[::-1] - 3.0 * i for i in range(scans)])
            found.append(inspected(np.linspace(0, slope, scans), layers=cells, by_step=by_step))
        else:
            logs = np.repeat(slope * np.arange(depth)[::-1], 2)
            found.append(inspected(logs, layers=names, activation=0.01 * logs))
    return found
