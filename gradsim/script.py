"""What the scripts share: options with presets, folders checked before anything is computed, data saved as Zarr."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

import gradsim
from gradsim import initializers
from gradsim.arguments import gain, whole
from gradsim.initializers import Initializer

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Options:
    """Options of every script."""

    preset: Literal["quick", "paper", "accelerator"] = "quick"
    """How fine and how long: quick for a laptop in about a minute, paper for a workstation in about an hour,
    accelerator for a GPU or TPU. An option given beside it overrides the preset's value."""

    out: Path = Path("figures")
    """Folder for the figures, and for the data as NAME.zarr; made if missing."""

    data: Path | None = None
    """A NAME.zarr that an earlier run saved: redraw from it without computing."""

    formats: tuple[Literal["png", "pdf", "svg"], ...] = ("png",)
    """File formats of the figures; none saves the data only."""

    key: int = 0
    """The whole number from which all randomness derives."""


Chosen = TypeVar("Chosen", bound=Options)
Datasets = Mapping[str, "xarray.Dataset"]


def parse(presets: Mapping[str, Chosen], arguments: Sequence[str] | None = None, description: str = "") -> Chosen:
    """The options on the command line; what is not given there has its preset's value."""
    import tyro

    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--preset", default="quick")
    early.add_argument("--inputs", default="gaussian")
    given = early.parse_known_args(arguments)[0]
    default: Any = presets.get(given.preset, presets["quick"])  # an unknown preset is tyro's to refuse
    if given.inputs == "digits":  # 8 x 8 pixels
        default = replace(default, **{field.name: 64 for field in fields(default) if field.name.endswith("width")})
    return tyro.cli(type(default), args=arguments, default=default, description=description)


def run(
    name: str,
    options: Chosen,
    measure: Callable[[Chosen], Datasets],
    report: Callable[[Datasets], str],
    draw: Callable[[Datasets], Mapping[str, Figure]],
) -> list[Path]:
    """Measure (or load), save the data, say what was measured, draw, and say where all went.

    Exits with one line where an option is wrong or a folder cannot be used, before anything is computed.
    """
    from gradsim import plot

    try:
        _check_counts(options)
        writable(options.out)
        if options.data is None:
            datasets = measure(options)
            print(f"data    {save(datasets, options.out / f'{name}.zarr')}")
        else:
            datasets = load(options.data)
        print(report(datasets))
        files = [
            file
            for title, figure in draw(datasets).items()
            for file in plot.save(figure, options.out / title, options.formats)
        ]
    except (ValueError, TypeError) as error:
        sys.exit(f"error: {error}")
    except KeyError as error:
        if options.data is None:
            raise
        sys.exit(f"error: data: {options.data} holds no {error}; pass what {name}.py has saved")
    for file in files:
        print(f"figure  {file}")
    return files


def _check_counts(options: Options) -> None:
    """Every whole number among the options counts something; only these two may be none."""
    for name, value in vars(options).items():
        if isinstance(value, int) and not isinstance(value, bool):
            whole(name, value, minimum=0 if name in ("key", "burn_in") else 1)


def writable(folder: Path) -> Path:
    """The folder, made if missing. Raises: ValueError where no file can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise ValueError(
            f"out: cannot write into {folder} ({error.strerror}); pass a folder that you may write to"
        ) from error


def save(datasets: Datasets, store: Path) -> Path:
    """Write each Dataset as a group of one Zarr store, in place of what was there."""
    import zarr

    zarr.open_group(store, mode="w").attrs["datasets"] = list(datasets)
    for name, dataset in datasets.items():
        # Fixed-width strings have no place in the Zarr 3 specification, those of any length do.
        strings = {key: values.astype(object) for key, values in dataset.variables.items() if values.dtype.kind == "U"}
        dataset.assign(strings).to_zarr(store, group=name, mode="a", consolidated=False)
    return store


def load(store: Path) -> dict[str, xarray.Dataset]:
    """Every Dataset of a store that `save` wrote. Raises: ValueError where there is none."""
    import xarray
    import zarr

    if not store.exists():
        raise ValueError(f"data: nothing at {store}; pass a NAME.zarr that an earlier run saved")
    try:
        names: Any = zarr.open_group(store, mode="r").attrs["datasets"]  # in the order in which they were saved
        return {name: xarray.open_zarr(store, group=name, consolidated=False).load() for name in names}
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"data: {store} cannot be read as Zarr ({error})") from error


def axis(name: str, limits: tuple[float, float], points: int) -> np.ndarray:
    """`points` evenly spaced values of the gain `name`. Raises: ValueError unless there are two, and they rise."""
    if points < 2:
        raise ValueError(f"points of {name}: got {points}; pass a whole number of at least 2")
    if not limits[0] < limits[1]:
        raise ValueError(f"{name}: got the range {limits[0]:g} to {limits[1]:g}; pass the smaller end first")
    return gain(name, np.linspace(*limits, points))


def samples(inputs: str, *widths: int) -> np.ndarray | None:
    """The inputs of this name, for networks of these widths: None for "gaussian", else handwritten digits.

    Raises: ValueError for a width other than 64, or where scikit-learn, which holds the digits, is missing.
    """
    if inputs == "gaussian":
        return None
    for width in widths:
        if width != 64:
            raise ValueError(f"width: got {width}; the digits have 8 x 8 pixels, pass 64")
    from gradsim.digits import digits

    try:
        return digits()
    except ImportError as error:
        raise ValueError(f"inputs: {error}") from error


def schemes(activations: Sequence[str], schemes: Sequence[str], *, width: int, **options: Any) -> xarray.Dataset:
    """Sweep every activation under every initialization scheme: axes activation, initializer, seed, depth.

    A scheme is a law and its gains, and gains do not recompile: he_normal is lecun_normal with sigma_w = √2,
    and without a bias its law does not matter, so schemes that can share a compilation do.

    Raises: ValueError or TypeError for an unknown name, before anything is compiled.
    """
    import xarray

    chosen = {name: initializers.get(name) for name in schemes}
    columns = []
    for name, scheme in chosen.items():
        law = _shared(scheme, list(chosen.values()), width)
        networks = {activation: gradsim.feedforward(width, activation, law) for activation in activations}
        gains: Any = {"sigma_w": scheme.weight_gain(width, width), "sigma_b": scheme.bias_gain(width)}
        column = gradsim.sweep(networks, **gains, **options)
        columns.append(column.rename(network="activation").assign_coords(initializer=name))
    return xarray.concat(
        columns, "initializer", data_vars="all", coords="different", compat="equals", join="exact",
        combine_attrs="override",
    )  # fmt: skip


def _shared(scheme: Initializer, others: Sequence[Initializer], width: int) -> Initializer:
    """One scheme out of those whose draws, at the gains of `scheme`, are its own."""
    unbiased = scheme.bias_gain(width) == 0
    same = [law for law in others if law.draw == scheme.draw and (unbiased or law.draw_bias == scheme.draw_bias)]
    return max(same, key=lambda law: law.bias_gain(width))
