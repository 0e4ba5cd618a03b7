"""Small Datasets by hand for every figure: usual, flat and huge, with as many panels and lines as asked."""

from typing import Any

import numpy as np
import xarray

from gradsim.theory.edge import EXISTS

NAMES = ("tanh", "sigmoid", "relu", "selu", "gelu", "sin", "leaky_relu")
SCHEMES = ("lecun_normal", "glorot_uniform", "he_normal", "he_uniform", "orthogonal", "sparse", "torch_linear")
TITLES = ("tanh RNN", "tanh RNN, orthogonal", "LSTM", "LSTM, forget bias 1", "GRU", "ReLU RNN, identity",
          "LRU, ring 0.9 to 0.999")  # fmt: skip
DEEP = ("sigmoid, Glorot", "ReLU, He", "ReLU, batch norm", "ReLU, pre-norm residual", "ReLU, residual",
        "tanh, large weights", "tanh, orthogonal")  # fmt: skip
KINDS = ("baseline", "better start", "normalization", "skip connection", "gate", "baseline", "gate")
SEEDS = np.linspace(-0.5, 0.5, 5)


def ends(data: str, count: int) -> np.ndarray:
    """The last log gain of each line."""
    if data == "flat":
        return np.zeros(count)
    low, high = {"usual": (-40.0, 20.0), "huge": (-1e5, 1e5)}[data]
    return np.linspace(low, high, count)


def spread(data: str) -> np.ndarray:
    return np.zeros(5) if data == "flat" else SEEDS * {"usual": 1.0, "huge": 1e3}[data]


def paths(data: str, count: int, steps: int) -> np.ndarray:
    """Log gains [count, seed, step]."""
    share = np.arange(1, steps + 1) / steps
    return ends(data, count)[:, None, None] * share + spread(data)[:, None] * share


def steps(axis: str, count: int) -> Any:
    return (axis, np.arange(1, count + 1), {"units": {"depth": "layer", "time": "step"}[axis]})


def gain(name: str, values: np.ndarray) -> Any:
    said = {"sigma_w": "weight gain σ_w", "sigma_b": "bias gain σ_b", "sigma_v": "input weight gain σ_v"}
    return (name, values, {"long_name": said.get(name, name.replace("_", " ")), "units": "1"})


def gain_map(data: str, first: str = "sigma_w", second: str = "sigma_b", axis: str = "depth") -> xarray.Dataset:
    """A sweep over two gains."""
    x, y = np.linspace(0.5, 3, 9), np.linspace(0.1, 1.5, 7)
    growth = {"flat": 0.0, "usual": 1.0, "huge": 1e5}[data] * (x[:, None] - 1.2 - y / 2)
    values = growth[..., None, None] * np.arange(1, 9) + spread(data)[:, None]
    coordinates = {first: gain(first, x), second: gain(second, y), axis: steps(axis, 8)}
    one = xarray.Dataset({"log_gain": ((first, second, "seed", axis), values)}, coordinates, {"burn_in": 1})
    edge = {"long_name": "edge of chaos", "source": "Schoenholz et al. 2017"}
    other = {"long_name": "no growth, where no length is fixed"}
    return one.assign(edge_of_chaos=(second, 1.2 + y / 2, edge), no_growth=(second, 1.3 + y / 2, other))


def lost(data: str) -> dict[str, xarray.Dataset]:
    """A narrow sweep over two loss scales, half-loss depths of four formats, and accuracies of three runs."""
    x, lag = np.linspace(0.5, 3, 9), np.arange(1, 9)
    growth = {"flat": 0.0, "usual": 1.0, "huge": 1e5}[data] * (x[:, None] - 1.2)
    share = np.clip(growth * lag[::-1] / 8, -1, 1) + 0 * SEEDS[:, None, None, None] * np.ones((2, 1, 1))
    dims = ("seed", "loss_scale", "sigma_w", "depth")
    scales = np.array([1.0, 3e4])
    narrow = xarray.Dataset(
        {"zeros": (dims, np.maximum(-share, 0)), "overflow": (dims, np.maximum(share, 0))},
        {"sigma_w": gain("sigma_w", x), "loss_scale": scales, "depth": steps("depth", 8)},
        {"dtype": "float8_e5m2", "depth": 8},
    )
    names = ["bfloat16", "float16", "float8_e4m3", "float8_e5m2"]
    with np.errstate(divide="ignore"):
        at = np.where(growth[:, 0] < 0, -10 / growth[:, 0], np.inf) * np.arange(1, 5)[:, None, None] * [[1.0], [2.0]]
    over = ("format", "scale", "sigma_w")
    horizons = xarray.Dataset(
        {
            "horizon_fit": (over, at), "horizon_fit_error": (over, at / 10),
            "horizon_crossing": (over, np.where(at < 8, at, np.nan)), "horizon_crossing_error": (over, at / 10),
        },
        {"sigma_w": gain("sigma_w", x), "scale": scales, "format": names},
    )  # fmt: skip
    accuracy = np.linspace(0.1, 0.9, 9) + 0.1 * SEEDS[:, None] * np.ones((3, 1, 1))
    gradient = ["float32", "float8_e4m3", "float8_e4m3, loss times 1024"]
    training = xarray.Dataset(
        {"accuracy": (("gradient", "seed", "sigma_w"), accuracy)},
        {"sigma_w": gain("sigma_w", x), "gradient": gradient}, {"layers": 20},
    )  # fmt: skip
    return {"lost": narrow, "horizons": horizons, "training": training}


def schemes(data: str, rows: int, columns: int) -> xarray.Dataset:
    values = paths(data, rows * columns, 12).reshape(rows, columns, 5, 12)
    theory = values.mean(2) * 1.01
    dims = ("activation", "initializer", "seed", "depth")
    without = tuple(name for name in dims if name != "seed")
    first_order = {"long_name": "first order in 1/N", "source": "after Hanin & Nica 2018"}
    variables: Any = {
        "log_gain": (dims, values),
        "theory": (without, theory, {"long_name": "infinite width", "source": "Schoenholz et al. 2017"}),
        "log_jvp": (dims, values - 0.1),
        "log_jvp_theory": (without, theory, first_order),
    }
    coordinates = {"activation": list(NAMES[:rows]), "initializer": list(SCHEMES[:columns]), "depth": np.arange(1, 13)}
    return xarray.Dataset(variables, coordinates)


def slopes(data: str, count: int) -> dict[str, xarray.Dataset]:
    """What `derivatives` draws."""
    z = np.linspace(-6, 6, 25)
    curves = np.tanh(np.linspace(0.5, 1.0, count)[:, None] * z)
    dims = ("activation", "z")
    activations = xarray.Dataset({"value": (dims, curves), "slope": (dims, 1 - curves**2)},
                                 {"activation": list(NAMES[:count]), "z": z})  # fmt: skip
    lowest, depth = {"flat": (0.99, 50), "usual": (0.1, 50), "huge": (1e-40, 1000)}[data]
    factors = np.unique(np.linspace(lowest, 1.0, count))
    log_gain = np.log(factors)[:, None, None] * np.arange(1, depth + 1)
    product = np.exp(np.maximum(log_gain[:, 0], -100))
    product[np.log10(np.e) * log_gain[:, 0] < -45] = 0
    chain = xarray.Dataset(
        {"log_gain": (("sigma_w", "seed", "depth"), log_gain), "float32_product": (("sigma_w", "depth"), product)},
        {"sigma_w": factors, "depth": np.arange(1, depth + 1)},
    )
    return {"activations": activations, "chain": chain}


def memories(data: str, count: int) -> dict[str, xarray.Dataset]:
    datasets = {}
    for title, values in zip(TITLES, paths(data, count, 40), strict=False):
        one = xarray.Dataset({"log_gain": (("seed", "time"), values[:, ::-1])}, {"time": steps("time", 40)},
                             {"direction": "backward"})  # fmt: skip
        datasets[title] = one.assign(theory=one["log_gain"].mean("seed"), dead=one["log_gain"] > np.inf)
    return datasets


def layers(data: str, names: int, rows: int, deepest: bool) -> dict[str, xarray.Dataset]:
    """Backward sweeps of three depths, and a deepest one."""

    def one(depth: int, rows: int) -> xarray.Dataset:
        values = paths(data, names * rows, depth)[..., ::-1].reshape(names, rows, 5, depth, 1)
        return xarray.Dataset(
            {"log_weight_gradient": (("network", "scheme", "seed", "depth", "parameter"), values)},
            {
                "network": list(NAMES[:names]), "scheme": list(SCHEMES[:rows]), "depth": np.arange(1, depth + 1),
                "parameter": ["w"],
                "sigma_w": ("scheme", np.full(rows, 0.577)), "sigma_b": ("scheme", np.full(rows, 0.1)),
            },
        )  # fmt: skip

    measured = {f"{depth} layers": one(depth, rows) for depth in (5, 20, 30)}
    return {**measured, "deepest": one(60, 1)} if deepest else measured


def cures(data: str, deep: int, recurrent: int) -> tuple[dict[str, xarray.Dataset], xarray.Dataset]:
    """Networks over depth and over time, and their table."""
    datasets, rows = {}, []
    for axis, count in (("depth", deep), ("time", recurrent)):
        for place, values in enumerate(paths(data, count, 40)):
            title = TITLES[place] if axis == "time" else DEEP[place]
            datasets[title] = xarray.Dataset(
                {"log_gain": (("seed", axis), values)}, {axis: steps(axis, 40)}, {"kind": KINDS[place]}
            )
            rows.append({"axis": axis, "steps": 40, "growth": values[0, -1] / 40, "growth_error": 0.012,
                         "horizon": 12.3, "horizon_error": 0.4, "change": ("falls", "grows", "holds")[place % 3],
                         "dead": 0.1})  # fmt: skip
    columns = {key: ("network", [row[key] for row in rows]) for key in rows[0]}
    return datasets, xarray.Dataset(columns, {"network": list(datasets)}, {"factor": 10.0})


def residuals(data: str) -> tuple[dict[str, xarray.Dataset], dict[str, xarray.Dataset]]:
    """What `residual_diagram` draws: two maps, two branches."""
    plain, skip = gain_map(data), gain_map(data)
    skip["edge_of_chaos"] = skip["edge_of_chaos"] * np.nan
    skip["log_gain"] = skip["log_gain"] - skip["log_gain"].min()
    grown = skip["log_gain"].isel(depth=-1).mean("seed", keep_attrs=True) / 8
    skip["growth_theory"] = grown
    branches = {}
    for title in ("ReLU, residual", "ReLU, pre-norm residual"):
        branch, depth = np.geomspace(0.02, 4, 9), np.arange(1, 41)
        values = {"flat": 0.0, "usual": 1.0, "huge": 1e4}[data] * branch[:, None] ** 2 * depth
        branches[title] = xarray.Dataset(
            {"log_gain": (("branch_gain", "seed", "depth"), values[:, None] + spread(data)[:, None]),
             "theory": (("branch_gain", "depth"), values)},
            {"branch_gain": gain("branch_gain", branch), "depth": depth},
        )  # fmt: skip
    return {"tanh, without skip": plain, "tanh, with skip": skip}, branches


def explosions(data: str, count: int, batches: int) -> dict[str, xarray.Dataset]:
    found = {}
    for place, name in enumerate(("identity", *NAMES[1:])[:count]):
        batch = np.unique(np.geomspace(6, 256, batches).round().astype(int))
        size = np.geomspace(4.5, 1.3 * batch[-1], 30)
        base = {"flat": 0.2, "usual": 0.2 + 0.1 * place, "huge": 1e5 * (place + 1)}[data]

        def law(n: np.ndarray, base: float = base) -> np.ndarray:
            return base * (1 + (0 if data == "flat" else 2) / n)

        error = np.full(batch.shape, 0.01 * base)
        values = {"typical": 0.97 * law(batch), "typical_error": error, "mean_square": law(batch),
                  "mean_square_error": error, "theory": law(batch)}  # fmt: skip
        one = xarray.Dataset({key: ("batch", value) for key, value in values.items()}, {"batch": batch})
        found[name] = one.assign(curve=xarray.DataArray(law(size), {"size": size}))
    return found


def lines(data: str, count: int, widths: int) -> dict[str, xarray.Dataset]:
    """What `critical_lines` draws; the third activation has no edge."""
    width, bias = np.unique(np.geomspace(16, 1024, widths).round().astype(int)), np.linspace(0.1, 1.0, 4)
    line = np.linspace(0.1, 1.0, 13)
    found = {}
    for place, name in enumerate(NAMES[:count]):
        slope = {"flat": 0.0, "usual": 0.5, "huge": 1e5}[data]
        edge = 1.2 + slope * line
        missing = (place == 2) | ((place == 4) & (line < 0.5))
        reason = np.where(missing, "no fixed point of the length has chi = 1", EXISTS)
        found[name] = xarray.Dataset(
            {
                "sigma_w": (("width", "sigma_b"), (1.2 + slope * bias) * (1 + 1 / width[:, None])),
                "standard_error": (("width", "sigma_b"), np.full((width.size, 4), 0.01 * (1.2 + slope))),
                "edge_of_chaos": ("line", np.where(missing, np.nan, edge)), "no_growth": ("line", edge),
                "reason": ("line", reason), "first_order": (("width", "line"), edge * (1 + 1 / width[:, None])),
            },
            {"width": width, "sigma_b": bias, "line": line},
        )  # fmt: skip
    return found


def distances(data: str, count: int, widths: int) -> dict[str, xarray.Dataset]:
    width, bias = np.unique(np.geomspace(16, 1024, widths).round().astype(int)), np.linspace(0.1, 1.0, 4)
    size = {"flat": 0.0, "usual": 1.0, "huge": 1e4}[data] / width[:, None] * np.ones(4)
    found = {}
    for place, name in enumerate(NAMES[:count]):
        values = {"distance": size * (1 + 0.2 * place), "distance_error": 0.1 * size + 1e-3, "expected": size,
                  "residual": 30 * size * (-1) ** place, "residual_first_order": 3 * size}  # fmt: skip
        found[name] = xarray.Dataset({key: (("width", "sigma_b"), value) for key, value in values.items()},
                                     {"width": width, "sigma_b": bias})  # fmt: skip
    return found


def scattered(data: str, kinds: int, widths: int) -> list[xarray.Dataset]:
    """What `finite_width` draws."""
    found = []
    scale = {"flat": 1e-6, "usual": 1.0, "huge": 1e4}[data]
    for kind in ("relu", "identity", *NAMES[3:])[:kinds]:
        for width in (2, 4, 8, 16, 32, 64, 128)[:widths]:
            depth = np.arange(1, 2 * width + 1)
            v = scale * depth / width
            values = -v + np.sqrt(v) * np.random.default_rng(width).standard_normal((200, 1))
            exact = {"mean": -v, "variance": v}
            variables: Any = {"log_jvp": (("seed", "depth"), values), "hanin_nica": ("depth", v)}
            for name, value in exact.items():
                variables |= {name: ("depth", 1.02 * value), f"{name}_error": ("depth", 0.01 * v),
                              f"exact_{name}": ("depth", value)}  # fmt: skip
            attributes = {"activation": kind, "width": width}
            found.append(xarray.Dataset(variables, {"depth": depth}, attributes))
    return found


def checks(data: str, count: int) -> xarray.Dataset:
    size = {"flat": 0.0, "usual": 3.0, "huge": 1e5}[data]
    columns = {
        "law": [f"A{k}" for k in range(count)],
        "statement": [f"what is stated of the log gain, case {k}" for k in range(count)],
        "z": size * np.linspace(-1, 1, count), "kind": [("sampled", "exact", "bound")[k % 3] for k in range(count)],
        "holds": [True] * count,
    }  # fmt: skip
    return xarray.Dataset({key: ("check", value) for key, value in columns.items()}, attrs={"standard_errors": 4.5})


def timings(data: str, count: int) -> dict[str, Any]:
    scale = {"flat": 0.0, "usual": 1.0, "huge": 1e5}[data]
    ratios = {f"way {k} (of doing it)": 1 + scale * k for k in range(count)}
    times = [256 * 2**k for k in range(count + 1)]
    sizes = [(grid, k) for grid in (256, 512) for k in range(min(count, 4))]
    cells = [{"depth": 100 * 10**k, "seeds": 4 * 2**k, "cells": grid, "result_bytes": 2**20 * 2**k,
              "peak_bytes": (100 + scale * k) * 2**20 + 2**20 * 2**k} for grid, k in sizes]  # fmt: skip
    return {
        "device": "CPU, 2 cores, x86_64, float32 at highest precision", "jax_version": "0.10.0",
        "rates": [{"name": f"feedforward {2**k}", "cells": 1024, "share": 0.1 + 0.8 * k / count} for k in range(count)],
        "baselines": {"networks": 1024, "width": 64, "depth": 30, "ratio": {"gradsim": 1.0, **ratios}},
        "scaling": {"depth": {"values": times, "seconds": [1 + scale * k for k in range(count + 1)]}},
        "memory": cells,
        "compile": [{"name": f"family {k}", "direction": way, "seconds": {
            "trace": 0.1 + scale * k, "lower": 0.1, "compile": 1.0 + scale}}
            for way in ("forward", "backward") for k in range(count)],
    }  # fmt: skip
