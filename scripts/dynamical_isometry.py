"""How far is a deep network from an isometry, and which architectures stay near one?

Maps the log condition number ln(σ_max/σ_min) of the Jacobian over weight gain and depth, for tanh networks with
Gaussian and with orthogonal weights, and follows it with depth in several families. Orthogonal weights near the edge of
chaos keep the singular values together, Gaussian weights never do (Pennington, Schoenholz & Ganguli 2017).

At infinite width σ_min is 0. The theory's contours take the value above which all but half a singular value of a width
lie, and know nothing of how the lowest ones of a finite matrix repel each other.

examples:
  python scripts/dynamical_isometry.py
  python scripts/dynamical_isometry.py --activation erf --max-depth 128
  python scripts/dynamical_isometry.py --preset paper --formats png pdf --out results
  python scripts/dynamical_isometry.py --data figures/dynamical_isometry.zarr
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray

import gradsim as gs
from gradsim import cli, theory
from gradsim.plot.spectra import conditions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LAWS = ("gaussian", "orthogonal")
FAMILIES = ("tanh", "tanh, orthogonal", "tanh, residual", "tanh RNN, orthogonal", "LSTM", "GRU")


@dataclass(frozen=True)
class Options(cli.SweepOptions):
    """Options of the condition numbers."""

    activation: str = "tanh"
    """Activation of the maps."""

    families: tuple[str, ...] = FAMILIES
    """Families beside the maps, one line each."""

    width: int = 32
    """Units a layer."""

    max_depth: int = 64
    """Layers, or steps."""

    burn_in: int = 30
    """Layers of the maps' networks before those that are measured, to let the length settle, as theory has it."""

    seeds: int = 8
    """Independent networks at each point."""

    sigma_w: tuple[float, float] = (0.5, 3.0)
    """Range of the weight gain of the maps."""

    sigma_b: float = 0.05
    """Bias gain of the maps."""

    points: int = 26
    """Points along the weight gain."""


PRESETS = {
    "quick": Options(),
    "paper": Options("paper", width=96, max_depth=256, seeds=16, points=60),
    "accelerator": Options("accelerator", width=256, max_depth=512, seeds=32, points=120),
}


def families(width: int, depth: int) -> dict[str, tuple[gs.Network, dict[str, Any]]]:
    """Networks that lose no direction for certain, as norms and ReLUs do, with gains where they are not the usual."""
    edge: Any = {"sigma_w": float(theory.edge_of_chaos("tanh", 0.05)), "sigma_b": 0.05}
    return {
        "tanh": (gs.feedforward(width, "tanh"), edge),
        "tanh, orthogonal": (gs.feedforward(width, "tanh", "orthogonal"), edge),
        "tanh, residual": (gs.residual(width, "tanh", scaling="inverse_depth", layers=depth), {}),
        "tanh RNN, orthogonal": (gs.vanilla_rnn(width, "tanh", "orthogonal"), {}),
        "LSTM": (gs.lstm(width), {}),
        "GRU": (gs.gru(width), {}),
    }


def heading(law: str) -> str:
    """Of a map."""
    return f"{law.capitalize()} weights"


def steps(deepest: int) -> tuple[int, ...]:
    """Two an octave, from 1 to the deepest."""
    found = np.geomspace(1, deepest, 2 * max(1, round(np.log2(deepest))) + 1)
    return tuple(np.unique(np.round(found).astype(int)).tolist())


def measure(options: Options) -> dict[str, xarray.Dataset]:
    """The maps by law, then the families."""
    weight = cli.axis("sigma_w", options.sigma_w, options.points)
    depths = steps(options.max_depth)
    shared: Any = {
        "depth": options.max_depth, "at": depths, "seeds": options.seeds, "key": options.key,
        "statistics": ("log_condition",), "dtype": "float64",  # float32 loses slopes that tanh's tails have
    }  # fmt: skip
    phi = options.activation
    jobs = {
        heading(law): partial(
            gs.sweep,
            gs.feedforward(options.width, phi, law),
            sigma_w=weight,
            sigma_b=options.sigma_b,
            burn_in=options.burn_in,
            **shared,
        )
        for law in LAWS
    }
    known = families(options.width, options.max_depth)
    for name in options.families:
        if name not in known:
            raise ValueError(f"families: got {name!r}; pass some of: {'; '.join(known)}")
        network, gains = known[name]
        jobs[name] = partial(gs.sweep, network, **gains, **shared)
    measured = {title: one.sel({axis: list(depths) for axis in ("depth", "time") if axis in one.dims})
                for title, one in cli.perform(jobs).items()}  # fmt: skip
    for law in LAWS:
        title = heading(law)
        expected = predicted(options, weight, depths, orthogonal=law == "orthogonal")
        measured[title] = measured[title].assign(theory=expected).assign_attrs(activation=phi)
    return measured


def predicted(options: Options, weight: np.ndarray, depths: Sequence[int], orthogonal: bool) -> xarray.DataArray:
    """ln σ_max less the ln σ that all but half a singular value exceed, over some of the gains and depths."""
    some = np.array([depth for depth in depths if depth > 1][::2])
    grid = weight[np.linspace(0, weight.size - 1, min(9, weight.size)).astype(int)]
    found = theory.singular_values(
        options.activation, grid[:, None], options.sigma_b, some, orthogonal=orthogonal, points=48
    )
    share = 1 - 1 / (2 * options.width)
    low = np.full(found.log_max.shape, np.nan)
    for cell in zip(*np.nonzero(np.isfinite(found.log_max)), strict=True):
        low[cell] = np.interp(-share, -found.above[cell], found.log_sigma[cell])
    # Where more slopes are 0 than that, so is the lowest singular value.
    values = np.where(found.zero > 1 - share, np.inf, found.log_max - low)
    attributes = {"long_name": "theory, infinite width", "source": "Pennington et al. 2018", "units": "nat"}
    return xarray.DataArray(values, {"theory_sigma_w": grid, "theory_depth": some}, attrs=attributes)


def report(datasets: Mapping[str, xarray.Dataset]) -> str:
    lines = ["log condition number (nat), median over networks:"]
    for title, one in datasets.items():
        axis = "time" if "time" in one.dims else "depth"
        middle = one["log_condition"].median("seed")
        if "sigma_w" in middle.dims:
            last = middle.isel({axis: -1})
            best = f"{float(last.min()):.1f}, at sigma_w = {float(last.idxmin('sigma_w')):.2f}"
            lines.append(f"  {title:22s} least at {axis} {int(one[axis][-1])}: {best}")
        else:
            said = ", ".join(f"{int(one[axis][i])}: {float(middle[i]):.1f}" for i in (0, middle.size // 2, -1))
            lines.append(f"  {title:22s} by {axis} {said}")
    return "\n".join(lines)


def draw(datasets: Mapping[str, xarray.Dataset]) -> dict[str, "Figure"]:
    return {"dynamical_isometry": conditions(datasets)}


def main(arguments: Sequence[str] | None = None) -> list[Path]:
    """Run the script with these arguments, those of the command line unless given; returns the figures."""
    options = cli.parse(PRESETS, arguments, str(__doc__))
    return cli.run("dynamical_isometry", options, measure, report, draw)


if __name__ == "__main__":
    main()
