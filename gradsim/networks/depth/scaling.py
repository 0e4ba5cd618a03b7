"""The way around a branch, μ x + a s f(x), and the schemes that keep a stack of many such blocks in hand."""

import math
from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from gradsim import arguments
from gradsim.initializers import Initializer
from gradsim.networks.network import Gains


class Scheme(NamedTuple):
    """What a scheme changes: the factor s = n^power of a branch, the start of its gain a, or the gains within it."""

    power: float = 0.0
    of: str = "depth"  # n is the depth L, or the index l of the block, from 1 on
    branch_gain: float = 1.0
    trained: str | None = None  # who has an `a` of its own, as a weight: each "block", "branch" or "unit"
    layers: bool = False  # must L be known?
    weighted: bool = False  # has the skip a gain μ?


SCHEMES = {
    "constant": Scheme(),
    "inverse_sqrt_depth": Scheme(-0.5, layers=True),
    "inverse_depth": Scheme(-1.0, layers=True),
    "inverse_sqrt_index": Scheme(-0.5, "index"),
    "inverse_index": Scheme(-1.0, "index"),
    "rezero": Scheme(branch_gain=0.0, trained="block"),
    "skipinit": Scheme(branch_gain=0.0, trained="branch"),
    "layerscale": Scheme(branch_gain=1e-5, trained="unit"),
    "fixup": Scheme(layers=True),
    "t_fixup": Scheme(layers=True),
    "gpt2": Scheme(layers=True),
    "deepnorm": Scheme(layers=True),
    "weighted_skip": Scheme(weighted=True),
}
FACTORS = tuple(name for name, scheme in SCHEMES.items() if scheme.power or name == "constant")
RESIDUAL = (*FACTORS, "rezero", "skipinit", "layerscale", "fixup", "weighted_skip")


class Branch(NamedTuple):
    """The gains of a branch's matrices: those before the last one, the linear path first, and the last one's."""

    inner: tuple[str, ...]
    last: str


def checked_layers(scaling: str, layers: Any, final_norm: bool = False) -> int | None:
    """`layers`, which a scheme of the depth and a final norm need, and which means nothing without one."""
    if not SCHEMES[scaling].layers and not final_norm:
        if layers is not None:
            raise ValueError(
                f"layers: got {arguments.shown(layers)} with scaling={scaling!r}; leave it out, or take another scaling"
            )
        return None
    if layers is None:
        reader = "final_norm=True" if final_norm else f"scaling={scaling!r}"
        raise ValueError(f"layers: got None; pass the depth L that {reader} is made for")
    return arguments.size("layers", layers)


def numbered(scaling: str) -> bool:
    """Does a block need its number?"""
    return SCHEMES[scaling].of == "index"


def branch_scale(scaling: str, layers: int | None, number: Array | None = None) -> Array | float:
    """The factor s that keeps the sum of branches bounded: 1, 1/√L, 1/L, 1/√l or 1/l, of block `number` = l − 1."""
    scheme = SCHEMES[scaling]
    if not scheme.power:
        return 1.0
    if scheme.of == "depth":
        assert layers is not None
        return 1 / math.sqrt(layers) if scheme.power == -0.5 else 1 / layers
    assert number is not None
    index = jnp.maximum(number + 1, 1).astype(jnp.result_type(float))  # before the first step a walk may begin
    return 1 / jnp.sqrt(index) if scheme.power == -0.5 else 1 / index


@cache
def record(*names: str) -> Any:
    """The type of a draw of these names, for a family that is put together from parts."""
    return namedtuple("Weights", names)


def parameters(scaling: str, others: Mapping[str, str]) -> dict[str, str]:
    """The weights of a block and their gains, and the branch gain's own where it has some."""
    return {**others, **({"scale": "branch_gain"} if SCHEMES[scaling].trained else {})}


def with_scale(scaling: str, weights: Any, branches: int, width: int, dtype: DTypeLike) -> Any:
    """The draw of a block with the weights that its branch gain multiplies, ones, where the scheme trains them."""
    trained = SCHEMES[scaling].trained
    if trained is None:
        return weights
    shape = {"block": (), "branch": (branches,), "unit": (branches, width)}[trained]
    return record(*weights._fields, "scale")(*weights, jnp.ones(shape, dtype))


def branch_gain(
    scaling: str,
    layers: int | None,
    gains: Gains,
    number: Array | None = None,
    scale: Array | None = None,
    place: int = 0,
) -> Array:
    """The whole factor a s on the branch at that place of its block; `scale` is what was drawn for the block."""
    if scale is not None:
        return gains["branch_gain"] * (scale[place] if scale.ndim else scale)
    factor = branch_scale(scaling, layers, number)
    gain = gains["branch_gain"]
    return gain * (factor.astype(gain.dtype) if isinstance(factor, Array) else factor)


def carried(scaling: str, gains: Gains, x: Array) -> Array:
    """What the skip hands on: x, or μ x of a weighted one."""
    return gains["skip_gain"] * x if SCHEMES[scaling].weighted else x


def skip_gains(scaling: str) -> dict[str, float]:
    """The gain of a weighted skip, μ."""
    return {"skip_gain": 1.0} if SCHEMES[scaling].weighted else {}


def deepnorm(layers: int) -> tuple[float, float]:
    """(α, β) of DeepNorm for L blocks of one stack: (2L)^¼ on the skip, (8L)^−¼ on the branch's weights."""
    return (2 * layers) ** 0.25, (8 * layers) ** -0.25


def weight_gain(scaling: str, initializer: Initializer) -> Callable[[int, int], float]:
    """The default gain of a matrix by its fan-in and fan-out: the initializer's, or entries of 0.02 as in GPT-2."""
    return (lambda n_in, n_out: 0.02 * math.sqrt(n_in)) if scaling == "gpt2" else initializer.weight_gain


def started(
    scaling: str, layers: int | None, gains: Mapping[str, float], branches: Iterable[Branch]
) -> dict[str, float]:
    """The default gains of a network under the scheme, from those that it has without one.

    With B branches in all: Fixup's last matrices are zero and the m − 1 others times B^(−1/(2m−2)), T-Fixup's linear
    path times 0.67 L^−¼ a matrix, GPT-2's last ones over √B.
    """
    found, branches = {**gains, "branch_gain": SCHEMES[scaling].branch_gain}, list(branches)
    found |= skip_gains(scaling)
    if layers is None:
        return found
    count = layers * len(branches)
    for inner, last in branches:
        if scaling == "fixup":
            found[last] = 0.0
            for name in inner:
                found[name] *= count ** (-0.5 / len(inner))
        elif scaling == "t_fixup":
            for name in (inner[0], last):
                found[name] *= 0.67 * layers**-0.25
        elif scaling == "gpt2":
            found[last] /= math.sqrt(count)
    return found
