"""Every activation under every initialization scheme, which two of the figures show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import gradsim
from gradsim import initializers
from gradsim.initializers import Initializer

if TYPE_CHECKING:
    import xarray


SCHEME = "scheme"
Jobs = dict[tuple[str, str], "partial[xarray.Dataset]"]


def schemes(activations: Sequence[str], schemes: Sequence[str], *, width: int, **options: Any) -> Jobs:
    """The sweep of every activation under each initialization scheme, by the name of the scheme.

    A scheme is a law and its gains, and gains do not recompile: he_normal is lecun_normal with sigma_w = √2,
    and without a bias its law does not matter, so schemes that can share a compilation do.

    Raises: ValueError or TypeError for an unknown name.
    """
    chosen = {name: initializers.get(name) for name in schemes}
    jobs: Jobs = {}
    for name, scheme in chosen.items():
        law = _shared(scheme, list(chosen.values()), width)
        networks = {activation: gradsim.feedforward(width, activation, law) for activation in activations}
        gains: Any = {"sigma_w": scheme.weight_gain(width, width), "sigma_b": scheme.bias_gain(width)}
        jobs[SCHEME, name] = partial(gradsim.sweep, networks, **gains, **options)
    return jobs


def join_schemes(measured: Mapping[Any, xarray.Dataset]) -> xarray.Dataset:
    """What the sweeps of `schemes`, or those among others, have measured: axes activation, initializer, seed, depth."""
    import xarray

    columns = [
        one.rename(network="activation").assign_coords(initializer=key[1])
        for key, one in measured.items()
        if key[0] == SCHEME
    ]
    return xarray.concat(
        columns, "initializer", data_vars="all", coords="different", compat="equals", join="exact",
        combine_attrs="override",
    )  # fmt: skip


def _shared(scheme: Initializer, others: Sequence[Initializer], width: int) -> Initializer:
    """One scheme out of those whose draws, at the gains of `scheme`, are its own."""
    unbiased = scheme.bias_gain(width) == 0
    same = [law for law in others if law.draw == scheme.draw and (unbiased or law.draw_bias == scheme.draw_bias)]
    return max(same, key=lambda law: law.bias_gain(width))
