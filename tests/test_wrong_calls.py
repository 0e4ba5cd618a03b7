"""Every public function, given every wrong kind of thing for each of its arguments."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import pytest
import wrong
from wrong import KINDS, nothing_measured, refused_each
from wrong_networks import NETWORK_KINDS, NETWORKS

import gradsim as gs
from gradsim import plot, theory

public: Any = gs  # whose newer functions a checker of older types may not know

# What is asked is to name the argument, so every call is right in all others.
THEORY_KINDS = {
    "activation": "function", "depth": "size", "width": "size or None", "orthogonal": "flag", "form": "choice",
    "log_sigma": "signed or None", "points": "size",
    "family": "choice", "c": "signed", "update_bias": "signed", "forget_bias": "signed", "gate_bias": "signed",
}  # fmt: skip
FORWARD = {"activation": "tanh", "sigma_w": 1.2, "sigma_b": 0.3}
CELL = {"sigma_w": 1.0, "sigma_v": 0.5, "sigma_b": 0.3, "input_variance": 1.0}
THEORY: dict[str, dict[str, Any]] = {
    "feedforward": FORWARD,
    "length_map": {**FORWARD, "q": 1.0},
    "decorrelation_map": {**FORWARD, "q": 1.0, "epsilon": 0.5},
    "correlation_map": {**FORWARD, "q": 1.0, "c": 0.5},
    "edge_of_chaos": {"activation": "tanh", "sigma_b": 0.3},
    "explain_edge": {"activation": "tanh", "sigma_b": 0.3},
    "transient": {**FORWARD, "depth": 3, "q0": 1.0},
    "spectrum_variance": {**FORWARD, "depth": 3, "q0": 1.0, "orthogonal": False},
    "singular_values": {
        **FORWARD, "depth": 3, "q": 1.0, "orthogonal": False, "log_sigma": [0.0, 1.0], "points": 9,
    },
    "log_gain": {**FORWARD, "depth": 3, "q0": 1.0, "width": 8, "orthogonal": False},
    "residual": {**FORWARD, "depth": 3, "q0": 1.0, "form": "two_layer", "branch_gain": 1.0, "sigma_v": 1.0},
    "tanh_residual_growth": {"sigma_w": 1.0, "depth": 4.0},
    "pre_norm_exponent": {"activation": "tanh", "sigma_w": 1.0, "sigma_b": 0.3},
    "batchnorm_growth": {"activation": "relu", "batch": 8},
    "vanilla_rnn": {**CELL, "activation": "tanh"},
    "minimal_rnn": {**CELL, "update_bias": 0.0},
    "gru": {**CELL, "update_bias": 0.0},
    "lstm": {**CELL, "forget_bias": 0.0},
    "recurrent_edge": {"family": "gru", "sigma_v": 0.5, "sigma_b": 0.3, "gate_bias": 0.0, "input_variance": 1.0},
}  # fmt: skip
SWEEP_KINDS = {
    "network": "network", "depth": "size", "seeds": "size", "key": "key", "burn_in": "count", "direction": "choice",
    "dtype": "choice", "statistics": "choice", "at": "size or None", "inputs": "data", "sigma_w": "gain",
    "sigma_b": "gain", "precision": "choice",
}  # fmt: skip


def cases(calls: Mapping[str, Mapping[str, Any]], kinds: Mapping[str, str], rest: str = "") -> list[Any]:
    """(function, argument, kind) of all these calls; an argument without a kind of its own is of the kind `rest`."""
    found = [
        (name, argument, kinds.get(f"{name}.{argument}", kinds.get(argument, rest)))
        for name, base in calls.items()
        for argument in base
    ]
    return [pytest.param(*case, id=f"{case[0]}-{case[1]}") for case in found]


@pytest.fixture(autouse=True)
def own_checks_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with nothing_measured(monkeypatch):
        yield


@pytest.fixture(scope="module")
def swept() -> Any:
    """A map of a few tiny networks."""
    return gs.sweep(gs.feedforward(4), depth=6, seeds=2, sigma_w=[1.0, 2.0], sigma_b=[0.1, 0.2])


@pytest.mark.parametrize(("function", "argument", "kind"), cases(NETWORKS, NETWORK_KINDS))
def test_families_refuse(function: str, argument: str, kind: str) -> None:
    def call(value: Any) -> Any:
        return getattr(gs, function)(**{**NETWORKS[function], argument: value})

    refused_each(argument, kind, call)


@pytest.mark.parametrize(("function", "argument", "kind"), cases(THEORY, THEORY_KINDS, "numbers"))
def test_theory_refuses(function: str, argument: str, kind: str) -> None:
    if (function, argument) in {("tanh_residual_growth", "depth"), ("batchnorm_growth", "batch")}:
        kind = "numbers"
    if function == "singular_values":
        kind = {"depth": "numbers", "q": "numbers or None"}.get(argument, kind)
    if function == "batchnorm_growth" and argument == "activation":
        kind = "choice"

    def call(value: Any) -> Any:
        return getattr(theory, function)(**{**THEORY[function], argument: value})

    refused_each(argument, kind, call)


@pytest.mark.parametrize(("argument", "kind"), SWEEP_KINDS.items(), ids=list(SWEEP_KINDS))
def test_sweep_refuses(argument: str, kind: str) -> None:
    base = {"network": gs.feedforward(4), "depth": 4, "seeds": 2, "statistics": ("log_gain", "log_spectral")}
    refused_each(argument, kind, lambda value: gs.sweep(**{**base, argument: value}))


@pytest.mark.parametrize("argument", ["network", "depth", "seeds", "key", "dtype", "inputs", "sigma_w"])
def test_partial_products_refuse(argument: str) -> None:
    base = {"network": gs.feedforward(4), "depth": 4, "seeds": 2}
    refused_each(argument, SWEEP_KINDS[argument], lambda value: gs.partial_products(**{**base, argument: value}))


@pytest.mark.parametrize(
    "argument", ["network", "gain", "depth", "seeds", "key", "burn_in", "dtype", "inputs", "statistic", "sigma_b"]
)
def test_critical_refuses(argument: str) -> None:
    base = {"network": gs.feedforward(4), "between": (1.0, 2.0), "depth": 4, "seeds": 2}
    kind = {**SWEEP_KINDS, "gain": "choice", "statistic": "choice"}[argument]
    refused_each(argument, kind, lambda value: gs.critical(**{**base, argument: value}))


def test_critical_refuses_what_is_no_bracket() -> None:
    values: list[Any] = [
        None, 1.0, "ab", (1.0,), (1, 2, 3), ("a", "b"), {"low": 1, "high": 2}, (2, 1), (1, 1), (1, wrong.NAN), (-1, 1),
        (None, 1), wrong.ARRAY, wrong.OTHER, [[1], [1, 2]],
    ]  # fmt: skip
    refused_each("between", values, lambda value: gs.critical(gs.feedforward(4), between=value, depth=4, seeds=2))


# A Dataset that is not of a sweep may be told so, or which statistic it lacks.
DATASET = ("dataset", "statistic")


@pytest.mark.parametrize("argument", ["dataset", "statistic", "since", "max_lost"])
def test_growth_refuses(argument: str, swept: Any) -> None:
    kind = {"dataset": "dataset", "statistic": "choice", "since": "count or None", "max_lost": "fraction"}[argument]
    name = DATASET if argument == "dataset" else argument
    refused_each(name, kind, lambda value: gs.growth(**{"dataset": swept, argument: value}))


@pytest.mark.parametrize("argument", ["dataset", "statistic", "fraction", "between", "start", "resamples", "max_lost"])
def test_horizon_refuses(argument: str, swept: Any) -> None:
    special: dict[str, Any] = {
        "start": [*wrong.NO_NUMBER[1:], wrong.NAN, wrong.INF, wrong.ARRAY],
        "between": [
            5, (1,), (1, 2, 3), ("a", "b"), (1, 100), (5, 2), (wrong.NAN, 3), (1j, 2), [[1], [1, 2]], wrong.ARRAY,
            {"a": 1, "b": 2}, "ab", wrong.OTHER, wrong.Opaque(),
        ],
        "dataset": [*KINDS["dataset"], swept.isel(depth=[]), swept.isel(depth=[-1]), swept.mean("seed")],
        "statistic": "choice", "resamples": "size",
    }  # fmt: skip
    name = DATASET if argument == "dataset" else argument
    values = special.get(argument, "fraction")
    refused_each(name, values, lambda value: gs.horizon(**{"dataset": swept, argument: value}))


def test_zero_crossing_refuses(swept: Any) -> None:
    refused_each("growth", [*KINDS["dataset"], swept, swept.log_gain], gs.zero_crossing)
    growth = swept.log_gain.isel(depth=-1, drop=True).mean("seed")
    refused_each("gain", "choice", lambda value: gs.zero_crossing(growth, value))


def test_digits_refuse() -> None:
    refused_each("by", "choice", gs.digits_sequence)


def test_concat_refuses(swept: Any) -> None:
    runs = [swept, swept.assign_coords(seed=swept.seed + 2)]
    values = [[swept], [swept, None], [swept, wrong.OTHER], swept, {"a": swept}, [swept, swept], *KINDS["dataset"]]
    refused_each("datasets", values, public.concat)
    refused_each("along", KINDS["choice"][1:], lambda value: public.concat(runs, value))


@pytest.mark.parametrize(
    "argument", ["network", "depth", "burn_in", "direction", "dtype", "precision", "statistics", "at", "inputs"]
)
def test_jacobian_norms_refuse(argument: str) -> None:
    base = {"network": gs.feedforward(4), "key": jax.random.key(0), "depth": 4}
    base["statistics"] = ("log_gain", "log_spectral")
    refused_each(argument, SWEEP_KINDS[argument], lambda value: public.jacobian_norms(**{**base, argument: value}))


def test_jacobian_norms_refuse_what_is_no_key_and_no_gains() -> None:
    network, key = gs.feedforward(4), jax.random.key(0)
    keys = [*KINDS["key"], 0, jax.random.split(key)]
    refused_each("key", keys, lambda value: public.jacobian_norms(network, value, depth=2))
    several = [3, "x", ["a"], {"a": 1}, wrong.ARRAY, {"sigma_w": [1.0, 2.0], "sigma_b": [1.0]}]
    refused_each("gains", several, lambda value: public.jacobian_norms(network, key, value, depth=2))
    gains: list[Any] = [None, "x", 1j, True, {}, [[1.0], [1.0, 2.0]], wrong.Opaque(), wrong.OTHER]
    refused_each("sigma_w", gains, lambda value: public.jacobian_norms(network, key, {"sigma_w": value}, depth=2))


def test_check_refuses_what_is_no_network() -> None:
    refused_each("network", "network", public.check)


PLOTS = [
    *[("phase_diagram", argument) for argument in ("dataset", "statistic", "theory", "axes")],
    *[("depth_profile", argument) for argument in ("dataset", "statistic", "theory", "panels", "lines")],
    *[("scheme_map", argument) for argument in ("dataset", "rows", "columns", "statistic")],
    ("derivatives", "datasets"),
]


@pytest.mark.parametrize(("function", "argument"), PLOTS, ids=map("-".join, PLOTS))
def test_plots_refuse(function: str, argument: str, swept: Any) -> None:
    named = swept.rename(sigma_w="activation", sigma_b="initializer")
    schemes = named.assign_coords(activation=["tanh", "relu"], initializer=["gaussian", "uniform"])
    dataset = swept if function == "phase_diagram" else schemes
    base = {} if argument == "datasets" else {"dataset": dataset}
    values: Any = {
        "dataset": [*KINDS["dataset"], dataset.isel(depth=[]), dataset.isel(seed=[]), [dataset]],
        "datasets": [*KINDS["dataset"], swept, {"activations": None, "chain": None}],
        "theory": ["log_gain", "x", 3, {"a": 1}, wrong.NAN, wrong.ARRAY, wrong.Opaque()],
        "axes": [[1], 3, "x", {"a": 1}, wrong.ARRAY, wrong.Opaque()],
    }.get(argument, KINDS["choice"])
    if argument in ("panels", "lines"):  # None leaves the choice to the figure
        values = [value for value in values if value is not None]
    name = (*DATASET, "theory", "panels", "lines", "rows", "columns") if argument == "dataset" else argument
    refused_each(name, values, lambda value: getattr(plot, function)(**{**base, argument: value}))


def test_figures_refuse(tmp_path: Any) -> None:
    figure, sizes = plot.new_figure(1.0), [*wrong.NO_NUMBER, *wrong.BAD_NUMBER, 0.0, wrong.ARRAY]
    stems = [None, 3, tmp_path / "missing" / "x", {}, wrong.NAN, wrong.ARRAY]
    formats = [None, "foo", ("foo",), 3, (3,), {"a": 1}, wrong.NAN, wrong.ARRAY]
    refused_each("figure", "dataset", lambda value: plot.save(value, tmp_path / "x"))
    refused_each("stem", stems, lambda value: plot.save(figure, value))
    refused_each("formats", formats, lambda value: plot.save(figure, tmp_path / "x", value))
    refused_each("height", sizes, plot.new_figure)
    refused_each("width", sizes, lambda value: plot.new_figure(1.0, value))
