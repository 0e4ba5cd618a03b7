"""Laws of infinitely wide feed-forward networks, and their first corrections in 1/N."""

import math

import numpy as np

from gradsim import theory
from gradsim.laws.record import Check, Law, estimated, exact, sampled
from gradsim.networks.depth.feedforward import feedforward
from gradsim.sweeps.sweep import sweep

EDGE = math.sqrt(1.760954639607)  # of tanh at σ_b² = 0.05


def tanh_edge(effort: int, key: int) -> list[Check]:
    book = {0.05: 1.260093817229, 0.1: 1.424205290489, 0.3: 1.947654631709, 0.5: 2.401489235108}
    edge = theory.edge_of_chaos("tanh", np.array(list(book)))
    return [
        exact("σ_w² at σ_b = 0.05, 0.1, 0.3, 0.5", edge**2, list(book.values()), 1e-9),
        exact("q* at σ_b = 0.3", theory.feedforward("tanh", edge[2], 0.3).q, 0.763474766910, 1e-8),
    ]


def erf_edge(effort: int, key: int) -> list[Check]:
    edge = theory.edge_of_chaos("erf", np.array([0.0, math.sqrt(0.05)]))
    return [exact("σ_w² at σ_b² = 0, 0.05", edge**2, [math.pi / 4, 1.375839007347], 1e-9)]


def tanh_scales(effort: int, key: int) -> list[Check]:
    found = theory.feedforward("tanh", np.sqrt([1.0, 1.5, 2.0, 4.0]), math.sqrt(0.05))
    return [
        exact("χ at σ_w² = 1, 1.5, 2, 4", found.chi, [0.7590316472, 0.9386362682, 1.0476659996, 1.3424024144], 1e-9),
        exact("ξ_q", found.xi_q, [1.747626, 1.682828, 1.387976, 0.873293], 1e-6),
        exact("ξ_c", found.xi_c, [3.626976, 15.790994, 25.213415, 6.980274], 1e-6),
    ]


def closed_forms(effort: int, key: int) -> list[Check]:
    q = np.array([1e-3, 0.1, 1.0, 10.0])
    forms = {
        "relu": q / 2,
        "erf": 2 / math.pi * np.arcsin(2 * q / (1 + 2 * q)),
        "sin": (1 - np.exp(-2 * q)) / 2,
    }
    checks = [
        exact(f"V of {name}, relative", theory.length_map(name, q, 1.0, 0.0) / values, 1.0, 1e-10)
        for name, values in forms.items()
    ]
    return [*checks, exact("χ of selu at σ_w = 1", theory.feedforward("selu", 1.0, 0.0).chi, 1.071574992456, 1e-9)]


def edge_of_chaos(effort: int, key: int) -> list[Check]:
    """On the edge the log gain only falls by what finite width takes away."""
    width, depth, sigma_b = 128, 40, math.sqrt(0.05)
    data = sweep(
        feedforward(width), depth=depth, seeds=200 * effort, key=key, statistics="log_jvp", sigma_w=EDGE,
        sigma_b=sigma_b,
    )  # fmt: skip
    infinite = theory.log_gain("tanh", EDGE, sigma_b, depth).mean[-1]
    finite = theory.log_gain("tanh", EDGE, sigma_b, depth, width=width).mean[-1]
    shift = width * (data.log_jvp.sel(depth=depth) - infinite)
    return [sampled("N (⟨ln‖Ju‖⟩ − N→∞), 40 layers", shift, width * (finite - infinite))]


def spectrum_variance(effort: int, key: int) -> list[Check]:
    sigma_b = math.sqrt(0.05)
    q0 = (float(theory.feedforward("tanh", EDGE, sigma_b).q) - sigma_b**2) / EDGE**2  # the length settled
    found = [theory.spectrum_variance("tanh", EDGE, sigma_b, 1, q0=q0, orthogonal=flag) for flag in (False, True)]
    return [exact("variance a layer, Gaussian, orthogonal", np.ravel(found), [1.34225608, 0.34225608], 1e-7)]


def largest_singular_value(effort: int, key: int) -> list[Check]:
    """Two widths, extrapolated: a finite N is low by a share of order N^−2/3."""
    depths, seeds = [1, 4], 24 * effort
    means, errors = [], []
    for width in (64, 512):  # N^−2/3 falls fourfold
        data = sweep(
            feedforward(width, "identity"), depth=4, seeds=seeds, key=key, statistics="log_spectral", at=depths
        ).sel(depth=depths)
        squares = np.exp(2 * data.log_spectral)
        means.append(squares.mean("seed").to_numpy())
        errors.append(squares.std("seed", ddof=1).to_numpy() / math.sqrt(seeds))
    limit, error = (4 * means[1] - means[0]) / 3, np.hypot(4 * errors[1], errors[0]) / 3
    book = [(length + 1) ** (length + 1) / length**length for length in depths]
    return [estimated(f"σ_max², L = {depths[i]}, N → ∞", limit[i], error[i], book[i]) for i in range(2)]


LAWS = (
    Law("B1", "Edge of chaos of tanh", "Schoenholz et al. 2017", tanh_edge),
    Law("B2", "Edge of chaos of erf", "Poole et al. 2016", erf_edge),
    Law("B3", "tanh at σ_b² = 0.05: χ and depth scales", "Schoenholz et al. 2017", tanh_scales),
    Law("B4", "Gaussian moments in closed form", "Williams 1997; Cho & Saul 2009", closed_forms),
    Law("B7", "tanh on its edge: the loss to finite width, to order 1/N", "Hanin & Nica 2018, extended", edge_of_chaos),
    Law("C1", "Variance of the squared singular values, tanh edge", "Pennington et al. 2018", spectrum_variance),
    Law("C2", "Gaussian linear: σ_max² = (L+1)^(L+1)/L^L", "Pennington et al. 2017", largest_singular_value),
)
