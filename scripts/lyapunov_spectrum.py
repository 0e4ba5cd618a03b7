"""How do recurrent networks stretch and fold: all their Lyapunov exponents, and how many dimensions are left?

Measures the whole spectrum of autonomous networks: tanh RNNs at several gains, an LSTM and a GRU, which keep a
share of their directions near zero, neither lost nor grown. The largest exponent of the tanh RNN is compared over
the gain with its theory at infinite width (Sompolinsky et al. 1988), which finite networks fall short of by a few
1/N. Maps over the gains of the weights and of the input's weights show where noise quenches chaos (Molgedey et al.
1992), and the dimension of the attractor (Kaplan & Yorke 1979).

examples:
  python scripts/lyapunov_spectrum.py
  python scripts/lyapunov_spectrum.py --width 32 --gains 1.5 4
  python scripts/lyapunov_spectrum.py --preset paper --formats png pdf --out results
  python scripts/lyapunov_spectrum.py --data figures/lyapunov_spectrum.zarr
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

import gradsim as gs
from gradsim import cli
from gradsim.plot.lyapunov import lyapunov_figure

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

# Products of a step, factors of its tangents included, that a second takes, about; and seconds to compile a program.
RATE, COMPILING = 3e9, 2.5


@dataclass(frozen=True)
class Options(cli.Options):
    """Options of the Lyapunov spectra."""

    may_be_none: ClassVar[tuple[str, ...]] = (*cli.Options.may_be_none, "gated")

    gains: tuple[float, ...] = (1.5, 2.0, 4.0)
    """Weight gains of the tanh RNNs whose spectra are drawn."""

    gated: tuple[Literal["GRU", "LSTM"], ...] = ("GRU", "LSTM")
    """Gated networks whose spectra are drawn beside them; none for the tanh RNN alone."""

    gated_gain: float = 6.0
    """Weight gain of the LSTM and the GRU."""

    width: int = 32
    """Units of the networks whose spectra are drawn."""

    widths: tuple[int, ...] = (64, 192)
    """Units of the networks whose largest exponent is measured over the gain."""

    map_width: int = 24
    """Units of the networks of the maps."""

    points: int = 24
    """Points of the maps along each gain."""

    depth: int = 300
    """Steps over which exponents are averaged, after half as many of burn-in."""

    seeds: int = 4
    """Independent networks at each point; at one of the maps, half as many."""


PRESETS = {
    "quick": Options(),
    "paper": Options(
        "paper", width=128, widths=(128, 512), map_width=64, points=100, depth=2000, seeds=8
    ),
    "accelerator": Options(
        "accelerator", width=256, widths=(256, 1024), map_width=128, points=100, depth=4000, seeds=16
    ),
}  # fmt: skip


def measure(options: Options) -> dict[str, "xarray.Dataset"]:
    """Spectra by title, the largest exponent by width, and the maps."""
    run = partial(gs.lyapunov_exponents, depth=options.depth, burn_in=options.depth // 2, key=options.key)
    jobs, works, steps = {}, {}, 1.5 * options.depth
    shown: dict[str, tuple[gs.Network, float]] = {
        f"tanh RNN, σ_w = {gain:g}": (gs.vanilla_rnn(options.width), gain) for gain in options.gains
    }
    for name in options.gated:
        gated: Any = {"GRU": gs.gru, "LSTM": gs.lstm}[name](options.width, initial="gaussian")
        shown[f"{name}, σ_w = {options.gated_gain:g}"] = gated, options.gated_gain
    for title, (network, gain) in shown.items():  # in float64, since their smallest exponents are far below the largest
        jobs[f"spectrum {title}"] = partial(
            run, network, seeds=options.seeds, dtype="float64", sigma_w=gain, sigma_v=0.0
        )
        works[f"spectrum {title}"] = work(steps * options.seeds * options.width**3)
    over = np.linspace(1.1, 3.0, 9)
    for width in options.widths:
        title = f"largest N = {width}"
        jobs[title] = partial(
            run, gs.vanilla_rnn(width, features=1), count=1, seeds=4 * options.seeds, sigma_w=over, sigma_v=0.0
        )
        works[title] = work(steps * 4 * options.seeds * over.size * width**2)
    sigma_w, sigma_v = cli.axis("sigma_w", (0.5, 5.0), options.points), cli.axis("sigma_v", (0.0, 2.0), options.points)
    half = max(1, options.seeds // 2)
    jobs["maps"] = partial(run, gs.vanilla_rnn(options.map_width), seeds=half, sigma_w=sigma_w, sigma_v=sigma_v)
    works["maps"] = work(steps * half * options.points**2 * options.map_width**3)
    with cli.Jobs(works) as several:
        found = several.run(jobs)
    for title in (f"largest N = {width}" for width in options.widths):
        theory = gs.theory.vanilla_rnn("tanh", over, 0.0).lyapunov
        about = {"long_name": "λ₁ at infinite width", "units": "nat/step"}
        found[title] = found[title].assign(theory=("sigma_w", theory, about))
    edge = gs.theory.edge_of_chaos("tanh", sigma_v)
    found["maps"] = found["maps"].assign(edge_of_chaos=("sigma_v", edge, {"long_name": "σ_w of λ₁ = 0", "units": "1"}))
    return found


def work(products: float) -> cli.Work:
    return cli.Work(others=COMPILING + products / RATE)


def report(datasets: Mapping[str, "xarray.Dataset"]) -> str:
    """Largest exponent, dimension and entropy rate of each spectrum."""
    lines = ["network                          λ₁ (nat/step)   Kaplan–Yorke dimension   entropy rate (nat/step)"]
    for title, one in datasets.items():
        if title.startswith("spectrum"):
            first, dimension = one.lyapunov.isel(exponent=0), one.kaplan_yorke / one.sizes["exponent"]
            lines.append(
                f"{title.removeprefix('spectrum '):30s}  {float(first.mean()):8.4f} ± {spread(first):6.4f}  "
                f"{float(dimension.mean()):7.3f} n ± {spread(dimension):5.3f}  {float(one.entropy_rate.mean()):14.3f}"
            )
    return "\n".join(lines)


def spread(values: "xarray.DataArray") -> float:
    """The standard error over seeds."""
    return float(values.std("seed", ddof=1)) / np.sqrt(values.sizes["seed"])


def draw(datasets: Mapping[str, "xarray.Dataset"]) -> dict[str, "Figure"]:
    def of(kind: str) -> dict[str, "xarray.Dataset"]:
        return {title.removeprefix(f"{kind} "): one for title, one in datasets.items() if title.startswith(kind)}

    return {"lyapunov_spectrum": lyapunov_figure(of("spectrum"), of("largest"), datasets["maps"])}


def main(arguments: Sequence[str] | None = None) -> list[Path]:
    """Run the script with these arguments, those of the command line unless given; returns the figures."""
    options = cli.parse(PRESETS, arguments, str(__doc__))
    return cli.run("lyapunov_spectrum", options, measure, report, draw)


if __name__ == "__main__":
    main()
