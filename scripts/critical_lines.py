"""At which weights do gradients of a finite network neither vanish nor explode?

Measures the critical weight gain sigma_w against the bias gain sigma_b for several activations and widths N, with
standard errors, and draws it over the edge of chaos of mean-field theory, which is for N to infinity, and over that
theory's first correction in 1/N. Where infinite networks have no edge, the panel says why, and dots show where a
typical gradient of the same layers does not grow. A second figure shows how the distance to theory falls as 1/N.

What is measured is the growth of a typical gradient, ln |J u| in the mean. It lags behind the mean square, which the
edge of chaos is about, so a narrow network needs larger weights. Points of one panel and width share their random
networks, hence err together; no two panels or widths do. Where the growth of a narrow network changes sign too far
from theory to be found there is no point.

examples:
  python scripts/critical_lines.py
  python scripts/critical_lines.py --activations tanh silu --widths 16 64 256 --seeds 256
  python scripts/critical_lines.py --preset paper --formats png pdf --out results
  python scripts/critical_lines.py --data figures/critical_lines.zarr
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
from gradsim.plot.critical import critical_lines, finite_width_scaling
from gradsim.theory.edge import UNSTABLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WEIGHTS = np.geomspace(0.3, 30, 160)  # among which the theory of finite depth looks for its change of sign
ANYWHERE = (float(WEIGHTS[0]), float(WEIGHTS[-1]))
THEORY = 1.0  # seconds, about, of one activation's
FINER = 5  # points of a theory's line for one of measurement
AT_ONCE = 2  # compiling, most of the time where networks are small, keeps one core busy


@dataclass(frozen=True)
class Options(cli.SweepOptions):
    """Options of the critical lines."""

    activations: tuple[str, ...] = ("sigmoid", "tanh", "erf", "sin", "softsign", "selu", "gelu", "relu")
    """Activations, one panel each."""

    widths: tuple[int, ...] = (32, 128, 512)
    """Units a layer, one colour each (7 at most)."""

    seeds: int = 96
    """Independent networks of the narrowest width; wider ones vary less, and there are fewer, as 1/width."""

    depth: int = 20
    """Layers over which the growth is measured."""

    burn_in: int = 12
    """Layers before those, in which the length of the signal settles."""

    sigma_b: tuple[float, float] = (0.1, 1.0)
    """Range of the bias gain; the larger end is that of the figure of distances."""

    points: int = 4
    """Values of sigma_b."""


ALL = (*Options.activations, "hard_tanh", "elu", "silu", "relu6")
PRESETS = {
    "quick": Options(),
    "paper": Options(
        "paper", activations=ALL, widths=(32, 64, 128, 256, 512), seeds=1024, depth=80, burn_in=40, points=7
    ),
    "accelerator": Options(
        "accelerator", activations=ALL, widths=(32, 64, 128, 256, 512, 1024, 2048), seeds=8192, depth=160, burn_in=40,
        points=13,
    ),
}  # fmt: skip


def measure(options: Options) -> dict[str, xarray.Dataset]:
    """For each activation the critical sigma_w over width and sigma_b, and theory on a finer line; checks first."""
    if len(options.widths) > len(gs.plot.COLOURS):
        raise ValueError(f"widths: got {len(options.widths)}; pass at most {len(gs.plot.COLOURS)}, one colour each")
    if options.seeds < 2:
        raise ValueError(f"seeds: got {options.seeds}; pass at least 2, a standard error needs them")
    widths = sorted(set(options.widths))
    networks = {name: [gs.feedforward(width, name) for width in widths] for name in options.activations}
    bias = cli.axis("sigma_b", options.sigma_b, options.points)
    axis = xarray.DataArray(widths, dims="width", name="width", attrs={"long_name": "width", "units": "1"})

    jobs: dict[tuple[str, int], partial[xarray.Dataset]] = {
        (name, network.width): cli.at_precision(partial(
            gs.critical, network, between=ANYWHERE, depth=options.depth, burn_in=options.burn_in, sigma_b=bias,
            seeds=max(2, options.seeds * widths[0] // network.width), key=own_key(options.key, place, network.width),
        ))
        for place, name in enumerate(networks)
        for network in networks[name]
    }  # fmt: skip
    theories = {("theory", name): partial(expect, name, axis, options) for name in networks}
    works: dict[Any, cli.Work] = {name: cli.Work(others=THEORY) for name in theories}
    works |= {name: cli.foresee(*job.args, **job.keywords) for name, job in jobs.items()}
    with cli.Jobs(works, AT_ONCE) as several:
        expected = {name: one for (_, name), one in several.run(theories).items()}
        found = several.run({key: partial(job, between=bracket(expected[key[0]])) for key, job in jobs.items()})
    lines = {}
    for name in networks:
        mine = [one for key, one in found.items() if key[0] == name]
        one = xarray.concat(mine, axis, combine_attrs="override").merge(expected[name])
        lines[name] = one.assign(status=one["status"].astype(object))  # Zarr 3 knows no fixed-width strings
    return lines


def bracket(expected: xarray.Dataset) -> tuple[float, float]:
    """Where to look for what is measured: around theory; anywhere if it has no value at all."""
    known = np.append(expected["no_growth"].values, expected["first_order"].values)
    known = known[np.isfinite(known)] if np.isfinite(known).any() else WEIGHTS
    return 0.75 * known.min(), 1.5 * known.max()


def own_key(*numbers: int) -> int:
    """A key of its own for each network, so that no two share a deviation that looks like a trend."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0] >> 1)


def expect(name: str, widths: xarray.DataArray, options: Options) -> xarray.Dataset:
    """Theory over `line`, values of sigma_b: the edge of chaos, and the sigma_w at which these very layers do not
    grow, at infinite width and to first order in 1/N.
    """
    line = np.linspace(*options.sigma_b, FINER * (options.points - 1) + 1)
    first, last = options.burn_in, options.burn_in + options.depth
    middle = (first + last) // 2
    infinite, unit = (theory.log_gain(name, WEIGHTS[:, None], line, last, width=width).mean for width in (None, 1))
    limit, shift = (np.insert(mean, 0, 0.0, axis=-1) for mean in (infinite, unit - infinite))  # before the first layer
    early, late = shift[..., middle] - shift[..., first], shift[..., last] - shift[..., middle]
    # Where the expansion holds, its terms add up at one rate. They do not while the length or the tangent still turns
    # from one state to another, and there is nothing to expand about where the length is not a stable one.
    rates = late * (middle - first), early * (last - middle)
    holds = np.abs(rates[0] - rates[1]) < 0.25 * np.abs(rates[0])
    total = np.where(holds, early + late, np.nan)
    axes = {"sigma_w": WEIGHTS, "line": line}
    growth = xarray.DataArray(limit[..., last] - limit[..., first], axes)
    reason = theory.explain_edge(name, line)
    first_order = gs.zero_crossing(growth + xarray.DataArray(total, axes) / widths)
    variables = {
        "edge_of_chaos": ("line", theory.edge_of_chaos(name, line)),
        "reason": ("line", reason.astype(object)),
        "no_growth": gs.zero_crossing(growth),
        "first_order": first_order.where(xarray.DataArray(reason != UNSTABLE, dims="line")).transpose("width", "line"),
    }
    return xarray.Dataset(variables)


def distances(one: xarray.Dataset) -> xarray.Dataset:
    """How far the measured line lies from theory, over width and sigma_b: as a share of sigma_w, and in standard
    errors; from the same layers at infinite width, and to first order in 1/N. (The edge of chaos is that of endless
    networks: it lies within half a percent of these layers where the burn-in has let their length settle.)
    """
    lines = one[["no_growth", "first_order"]].sel(line=one["sigma_b"], method="nearest").drop_vars("line")
    infinite = lines["no_growth"]
    return xarray.Dataset(
        {
            "distance": one["sigma_w"] / infinite - 1,
            "distance_error": one["standard_error"] / infinite,
            "expected": lines["first_order"] / infinite - 1,
            "residual": (one["sigma_w"] - infinite) / one["standard_error"],
            "residual_first_order": (one["sigma_w"] - lines["first_order"]) / one["standard_error"],
        }
    )


def report(datasets: Mapping[str, xarray.Dataset]) -> str:
    lines = ["measured critical sigma_w, in percent above that of infinite width (theory to first order in 1/N):"]
    for name, one in datasets.items():
        last = distances(one).assign(status=one["status"]).isel(sigma_b=-1)
        words = [f"N = {width}: {_said(last.sel(width=width))}" for width in last["width"].values]
        lines.append(f"  {name:10s} sigma_b = {float(last['sigma_b']):g}: {', '.join(words)}")
    return "\n".join(lines)


def _said(here: xarray.Dataset) -> str:
    distance, error, expected = (float(here[name]) for name in ("distance", "distance_error", "expected"))
    if np.isnan(distance):
        return str(here["status"].item())
    return f"{distance:.2%} ± {error:.2%} ({'no expansion' if np.isnan(expected) else f'{expected:.2%}'})"


def draw(datasets: Mapping[str, xarray.Dataset]) -> dict[str, "Figure"]:
    apart = {name: distances(one) for name, one in datasets.items()}
    return {"critical_lines": critical_lines(datasets), "finite_width_scaling": finite_width_scaling(apart)}


def main(arguments: Sequence[str] | None = None) -> list[Path]:
    """Run the script with these arguments, those of the command line unless given; returns the figures."""
    options = cli.parse(PRESETS, arguments, str(__doc__))
    return cli.run("critical_lines", options, measure, report, draw)


if __name__ == "__main__":
    main()
