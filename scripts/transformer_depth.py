"""What becomes of the gradient in a deep transformer, by where its norms are and how its branches are scaled?

Measures whole blocks of attention and a ReLU MLP as they start: on the way forth the gain of all tokens together after
each block and how alike the tokens have become, on the way back what a gradient has met down to each block; and for one
network a map over the temperature of its logits and the depth. Points are root mean squares over networks, with their
standard errors; lines are the theory of infinite width and many heads (Cowsik et al. 2024, with the norm where it is).
Pre-norm grows as a power of depth, and its tokens become alike as slowly. With a norm after the sum (post-norm) tokens
are all alike within some twenty blocks, and then the gain stands still: it neither vanishes nor explodes. What is
measured after the last block is also written as transformer_depth.csv.

The temperature τ is the standard deviation of a logit at its start, σ_q² after a norm: 0 is uniform attention, 1 what
weights of variance 1/n give, ½ PyTorch's, and 0.3 to 1.6 GPT-2's from its smallest to its widest.

examples:
  python scripts/transformer_depth.py
  python scripts/transformer_depth.py --networks pre-norm post-norm --depth 200 --temperature 2
  python scripts/transformer_depth.py --preset paper --formats png pdf --out results
  python scripts/transformer_depth.py --data figures/transformer_depth.zarr
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray

import gradsim as gs
from gradsim import cli
from gradsim.networks.depth.transformer import Transformer
from gradsim.plot.transformer_depth import MAP, summary, transformer_depth

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Title -> what the network and its theory are given, and whether they must know the depth.
NETWORKS: dict[str, dict[str, Any]] = {
    "pre-norm": {"position": "pre"},
    "post-norm": {"position": "post"},
    "peri-norm": {"position": "peri"},
    "no norm, 1/√L": {"position": "none", "scaling": "inverse_sqrt_depth", "qk_norm": True},
    "DeepNorm": {"position": "post", "scaling": "deepnorm"},
    "GPT-2": {"position": "pre", "scaling": "gpt2"},
    "pre-norm, 1/√L": {"position": "pre", "scaling": "inverse_sqrt_depth"},
    "pre-norm, 1/L": {"position": "pre", "scaling": "inverse_depth"},
    "pre-norm, 1/√l": {"position": "pre", "scaling": "inverse_sqrt_index"},
    "pre-norm, 1/l": {"position": "pre", "scaling": "inverse_index"},
    "LayerScale": {"position": "pre", "scaling": "layerscale"},
    "ReZero": {"position": "pre", "scaling": "rezero"},
    "Fixup": {"position": "none", "scaling": "fixup"},
    "T-Fixup": {"position": "none", "scaling": "t_fixup"},
}
SHOWN = tuple(NETWORKS)[:6]
NEEDS_DEPTH = ("inverse_sqrt_depth", "inverse_depth", "deepnorm", "gpt2", "fixup", "t_fixup")
STARTS = ("gpt2", "fixup", "t_fixup", "rezero", "layerscale")  # choices of gains alone


@dataclass(frozen=True)
class Options(cli.SweepOptions):
    """Options of the depth of transformers."""

    networks: tuple[str, ...] = SHOWN
    """Which networks, by their titles in the figure."""

    mapped: str = "pre-norm"
    """The network of the map over temperature and depth."""

    width: int = 64
    """Units of a token."""

    heads: int = 8
    """Heads of attention; their size and number should both be large for the theory."""

    tokens: int = 4
    """Tokens, independent at the start."""

    mlp: int = 2
    """How many times as wide the MLP is inside."""

    depth: int = 64
    """Blocks."""

    temperature: float = 1.0
    """The standard deviation of a logit, but of GPT-2, which has its own."""

    temperatures: tuple[float, float] = (0.0, 4.0)
    """Range of the map."""

    points: int = 9
    """Temperatures of the map."""

    seeds: int = 8
    """Independent networks of each kind; means and errors are over them."""


PRESETS = {
    "quick": Options(),
    "paper": Options("paper", width=256, heads=16, tokens=8, depth=256, seeds=16, points=13),
    "accelerator": Options("accelerator", width=512, heads=16, tokens=16, depth=1000, seeds=16, points=17),
}


def measure(options: Options) -> dict[str, xarray.Dataset]:
    """Of each network both ways and the theory of both; then the map."""
    for name, value, least in (("seeds", options.seeds, 2), ("tokens", options.tokens, 2)):
        if value < least:
            raise ValueError(f"{name}: got {value}; pass at least {least}")
    if unknown := [name for name in (*options.networks, options.mapped) if name not in NETWORKS]:
        raise ValueError(f"networks: got {', '.join(unknown)}; pass some of: {', '.join(NETWORKS)}")
    if not 0 <= options.temperature < math.inf:
        raise ValueError(f"temperature: got {options.temperature:g}; pass a finite number of at least 0")
    networks = {name: build(name, options) for name in options.networks}
    sweep = partial(gs.sweep, depth=options.depth, seeds=options.seeds, key=options.key)
    jobs: dict[tuple[str, str], partial[xarray.Dataset]] = {}
    for name, network in networks.items():
        gains = chosen(name, network, options.temperature)
        jobs[name, "forth"] = partial(sweep, network, statistics=("log_gain", "token_spread"), **gains)
        jobs[name, "back"] = partial(sweep, network, direction="backward", **gains)
    taus = cli.axis("temperatures", options.temperatures, options.points)
    one = build(options.mapped, options)
    gain = "logit_gain" if one.qk_norm else "sigma_q"
    others = {name: value for name, value in chosen(options.mapped, one, 1.0).items() if name != gain}
    jobs["map", ""] = partial(sweep, one, **{gain: taus if one.qk_norm else np.sqrt(taus)}, **others)
    measured = cli.perform(jobs)
    found = {name: joined(name, measured[name, "forth"], measured[name, "back"], options) for name in networks}
    mapped = measured["map", ""].rename({gain: "temperature"}).assign_coords(
        temperature=("temperature", taus, {"long_name": "standard deviation of a logit", "units": "1"})
    )  # fmt: skip
    path = predicted(options.mapped, options, taus)
    theory = (("temperature", "depth"), path.log_gain, {"long_name": "theory", "units": "nat"})
    return {**found, MAP: mapped.assign(theory=theory).assign_attrs(network=options.mapped)}


def build(name: str, options: Options) -> Transformer:
    choices = NETWORKS[name]
    layers = options.depth if choices.get("scaling") in NEEDS_DEPTH else None
    return gs.transformer(
        options.width, options.heads, options.tokens, options.mlp, "relu", norm="rms", epsilon=0.0, layers=layers,
        **choices,
    )  # fmt: skip


def chosen(name: str, network: Transformer, temperature: float) -> dict[str, float]:
    """The gains that are not the network's own: those of its logits, and an MLP that keeps the length of its input."""
    start = NETWORKS[name].get("scaling")
    if start == "gpt2":
        return {}
    gains = {"logit_gain" if network.qk_norm else "sigma_q": temperature if network.qk_norm else temperature**0.5}
    return gains | ({} if start in ("fixup", "t_fixup") else {"sigma_w": math.sqrt(2)})


def predicted(name: str, options: Options, temperature: float | np.ndarray) -> gs.theory.TransformerPath:
    """The theory of infinite width, with the gains of the network."""
    network, choices = build(name, options), dict(NETWORKS[name])
    gains: dict[str, Any] = {**network.gains, **chosen(name, network, 1.0)}
    if choices.get("scaling") != "gpt2" or np.ndim(temperature):
        gains["logit_gain" if network.qk_norm else "sigma_q"] = temperature if network.qk_norm else np.sqrt(temperature)
    del gains["sigma_b"]
    if choices.get("scaling") in STARTS:
        del choices["scaling"]
    return gs.theory.transformer(options.tokens, options.depth, "relu", **choices, **gains)


def joined(name: str, forth: xarray.Dataset, back: xarray.Dataset, options: Options) -> xarray.Dataset:
    """Both ways in one Dataset, with the correlation of tokens, and theory beside each."""
    path = predicted(name, options, options.temperature)
    alike = 1 - forth["token_spread"] ** 2 / (1 - 1 / options.tokens)
    theory: dict[str, Any] = {
        f"{field}_theory": ("depth", values, {"units": units})
        for field, values, units in (
            ("log_gain", path.log_gain, "nat"), ("log_back", path.log_gradient, "nat"),
            ("correlation", path.correlation, "1"),
        )
    }  # fmt: skip
    return forth.assign(
        log_back=back["log_gain"].assign_attrs(long_name="log gain from a block's input to the end"),
        correlation=alike.assign_attrs(long_name="correlation of tokens", units="1"),
        **theory,
    )


def table(shown: Mapping[str, xarray.Dataset]) -> xarray.Dataset:
    """After the last block, over network: gain, back and correlation of `summary`, and the depth."""
    ends = [one.isel(depth=-1).reset_coords("depth").reset_coords(drop=True) for one in shown.values()]
    names = {"network": list(shown)}
    return xarray.Dataset({name: ("network", [float(end[name]) for end in ends]) for name in ends[0].data_vars}, names)


def report(datasets: Mapping[str, xarray.Dataset], folder: Path | None = None) -> str:
    """What is measured at the end, with theory in brackets; and as transformer_depth.csv in the folder, if given."""
    shown = {name: summary(one) for name, one in datasets.items() if name != MAP}
    depth = next(iter(datasets.values())).sizes["depth"]
    lines = [f"after {depth} blocks, root mean square (theory); in nat, and the correlation of tokens"]
    for name, one in shown.items():
        last = one.isel(depth=-1)
        lines.append(
            f"  {name:16s} gain {float(last.gain):+.2f} ± {float(last.gain_error):.2f} ({float(last.gain_theory):+.2f})"
            f"   correlation {float(last.correlation):.3f} ± {float(last.correlation_error):.3f}"
            f" ({float(last.correlation_theory):.3f})"
        )
    if folder is not None:
        table(shown).to_dataframe().to_csv(folder / "transformer_depth.csv")
        lines.append(f"table   {folder / 'transformer_depth.csv'}")
    return "\n".join(lines)


def draw(datasets: Mapping[str, xarray.Dataset]) -> dict[str, "Figure"]:
    return {"transformer_depth": transformer_depth(datasets)}


def main(arguments: Sequence[str] | None = None) -> list[Path]:
    """Run the script with these arguments, those of the command line unless given; returns the figures."""
    options = cli.parse(PRESETS, arguments, str(__doc__))
    return cli.run("transformer_depth", options, measure, partial(report, folder=options.out), draw)


if __name__ == "__main__":
    main()
