"""Laws of what recurrences remember: their products after so many steps."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import xarray
from scipy.special import digamma, polygamma

from gradsim import theory
from gradsim.laws.record import Check, Law, added, estimated, exact, sampled, sampled_variance
from gradsim.networks.network import Network
from gradsim.networks.time.antisymmetric import antisymmetric_rnn
from gradsim.networks.time.delta_rule import delta_net
from gradsim.networks.time.elementwise import indrnn, min_gru, min_lstm
from gradsim.networks.time.linear_attention import retnet
from gradsim.networks.time.linear_recurrence import linear_recurrence
from gradsim.networks.time.oscillators import cornn
from gradsim.networks.time.slstm import slstm
from gradsim.networks.time.state_space import mamba, mamba2, s4d
from gradsim.networks.time.unitary import unitary_rnn
from gradsim.networks.time.xlstm import mlstm
from gradsim.sweeps.sweep import sweep

Targets = Mapping[int, float]  # steps -> E‖Ju‖²


def square(dataset: xarray.Dataset, steps: int) -> np.ndarray:
    """‖Ju‖² after so many steps, of each network."""
    return np.asarray(np.exp(2 * dataset.log_jvp.sel(time=steps).to_numpy()))


def mean_squares(
    network: Network, targets: Targets, seeds: int, gains: Mapping[str, float] = MappingProxyType({})
) -> Callable[[int, int], list[Check]]:
    """E‖Ju‖² after these numbers of steps, which the theory has too."""

    def measure(effort: int, key: int) -> list[Check]:
        every: Any = gains
        data = sweep(network, depth=max(targets), seeds=seeds * effort, key=key, statistics="log_jvp", **every)
        checks = []
        for steps, target in targets.items():
            closed = math.exp(2 * float(theory.log_memory(network, steps, **gains)))
            checks.append(exact(f"{network.family}: theory, T = {steps}", closed / target, 1.0, 1e-10))
            checks.append(sampled(f"{network.family}: E‖Ju‖², T = {steps}", square(data, steps), target))
        return checks

    return measure


def state_spaces(effort: int, key: int) -> list[Check]:
    free = {"sigma_delta": 0.0}
    parts = (
        mean_squares(s4d(4, 2, initial="gaussian"), {10: 0.82918665063912, 100: 0.39584200536105}, 2000),
        mean_squares(mamba(4, 16, initial="gaussian"), {10: 0.34214542062784, 100: 0.047656472864845}, 2000, free),
        mean_squares(mamba2(16, 8, initial="gaussian"), {10: 0.333861999959, 100: 0.040958603295}, 2000, free),
    )
    return [check for part in parts for check in part(effort, key)]


def minimal_gates(effort: int, key: int) -> list[Check]:
    """Inputs of norm √features and new weights at each step make every argument an independent normal number."""
    steps, checks = 8, []
    for network, mean_log, mean_square in (
        (min_gru(1, tied=False), -0.806059183347, 0.293379035858),
        (min_lstm(1, tied=False), -0.756300131142, 0.276117693780),
    ):
        data = sweep(network, depth=steps, seeds=2000 * effort, key=key, inputs=np.ones((1, steps, 1))).log_gain
        checks.append(sampled(f"{network.family}: E ln g", data.sel(time=steps) / steps, mean_log))
        checks.append(sampled(f"{network.family}: E g²", np.exp(2 * data.sel(time=1)), mean_square))
    return checks


def matrix_memory(effort: int, key: int) -> list[Check]:
    data = sweep(mlstm(8, 4), depth=1000, seeds=2, key=key, dtype="float64").log_gain
    targets = {100: -0.747437088932, 1000: -3.168728469820}
    matrix = [
        exact(f"log gain, b_f = 3 … 6, T = {steps}", data.sel(time=steps), one, 1e-11) for steps, one in targets.items()
    ]
    return [*matrix, *_scalar_memory(key)]


def _scalar_memory(key: int) -> list[Check]:
    """c/n at constant gates; the one unit's own bias of f is 5."""
    cases, i = {0.9: (30, 0.0087758462861763), 1.2: (2000, 1 / 3.5)}, 0.5
    data = sweep(
        slstm(1, forget="exp", of="cell"), depth=2000, seeds=2, key=key, dtype="float64", sigma_v=0.0, sigma_b=0.0,
        forget_bias=[math.log(f) - 5 for f in cases], input_bias=math.log(i),
    ).log_gain  # fmt: skip
    return [
        exact(
            f"sLSTM: ∂(c/n)_T, f = {f:g}, i = {i:g}, T = {steps}",
            np.exp(data.isel(forget_bias=place).sel(time=steps)), target, 1e-13,
        )
        for place, (f, (steps, target)) in enumerate(cases.items())
    ]  # fmt: skip


def delta_rule(effort: int, key: int) -> list[Check]:
    n, steps = 16, 40
    data = sweep(
        delta_net(n, tied=False), depth=steps, seeds=400 * effort, key=key, statistics="log_jvp", beta=[0.5, 1.0, 2.0],
        sigma_beta=0.0,
    )  # fmt: skip
    mean = (digamma((n - 1) / 2) - digamma(n / 2)) / 2
    variance = (polygamma(1, (n - 1) / 2) - polygamma(1, n / 2)) / 4
    a_step = added(data.log_jvp.sel(beta=1.0))
    decay = sweep(retnet(8, 8), depth=100, seeds=2, key=key, dtype="float64").log_gain.sel(time=100)
    return [
        exact("mean a step, from the book", mean, -0.03444199685476, 1e-13),
        sampled("mean a step, n = 16, β = 1", a_step, mean),
        sampled_variance("variance a step, n = 16, β = 1", a_step, variance),
        sampled("E‖Ju‖², n = 16, β = ½, T = 40", square(data.sel(beta=0.5), steps), (1 - 0.75 / n) ** steps),
        exact("ln ‖Ju‖, β = 2", data.log_jvp.sel(beta=2.0), 0.0, 2e-5),
        exact("RetNet, 8 heads: log gain, T = 100", decay, -0.338116915039, 1e-11),
    ]


def isometry(effort: int, key: int) -> list[Check]:
    """From any input."""
    statistics = ("log_gain", "log_spectral", "log_jvp")
    data = sweep(
        unitary_rnn(4, features=2), depth=1000, seeds=2, key=key, dtype="float64", statistics=statistics,
        sigma_v=[0.0, 1.0],
    )  # fmt: skip
    worst = [float(abs(data[name]).max()) for name in statistics]
    return [exact("largest |log gain|, |ln σ_max|, |ln ‖Ju‖|, T ≤ 1000", worst, 0.0, 1e-12)]


def antisymmetric(effort: int, key: int) -> list[Check]:
    """Untied at n = 8; and tied without damping in the limit of width, two of which are extrapolated."""
    one_step = {1: 1.007525, 40: 1.007525**40}
    untied = mean_squares(
        antisymmetric_rnn(8, "identity", tied=False), one_step, 2000, {"step_size": 0.1, "damping": 0.05}
    )
    size, steps, seeds, found = 0.2, 10, 200 * effort, []
    terms = [math.comb(steps, k) * (2 * size**2) ** k * math.comb(2 * k, k) / (k + 1) for k in range(steps + 1)]
    for n in (32, 64):
        data = sweep(
            antisymmetric_rnn(n, "identity"), depth=steps, seeds=seeds, key=key, step_size=size, damping=0.0
        ).log_gain  # fmt: skip
        found.append(np.exp(2 * data.sel(time=steps).to_numpy()))
    limit = 2 * found[1].mean() - found[0].mean()
    error = math.sqrt((4 * found[1].var(ddof=1) + found[0].var(ddof=1)) / seeds)
    return [*untied(effort, key), estimated("tied: E‖Ju‖², ε = 0.2, T = 10, n → ∞", limit, error, sum(terms))]


def oscillators(effort: int, key: int) -> list[Check]:
    """In every network, at any weights and inputs."""
    n, steps, size, damping = 3, 50, 0.05, 4.0
    data = sweep(
        cornn(n, features=2), depth=steps, seeds=2, key=key, dtype="float64", statistics="log_singular_values",
        sigma_w=[0.5, 3.0], sigma_z=0.0, step_size=size, damping=damping,
    )  # fmt: skip
    total = data.log_singular_values.sel(time=steps).sum("singular_value")
    return [exact("Σ ln σ_i / T, coRNN, n = 3, T = 50", total / steps, n * math.log1p(-size * damping), 1e-12)]


LAWS = (
    Law(
        "I1", "Ring: E‖λ‖^2T = (b^(2T+2) − a^(2T+2))/((T + 1)(b² − a²)), a power of T", "Orvieto et al. 2023",
        mean_squares(linear_recurrence(8, ring=(0.9, 0.999)), {100: 0.0430275965931}, 500),
    ),
    Law("I2", "Diagonal state spaces: differences of exponential integrals", "Gu & Dao 2023", state_spaces),
    Law("I3", "minGRU, minLSTM: gates of the input forget e-fold in 1.3 steps", "Feng et al. 2024", minimal_gates),
    Law("I4", "mLSTM: ∂C_T/∂C_0 = Π f_t I; sLSTM: ∂(c/n)_T at constant gates", "Beck et al. 2024", matrix_memory),
    Law("I5", "Delta rule: E‖Ju‖² = [1 − β(2 − β)/n]^T, an isometry at β = 2", "random projections", delta_rule),
    Law("I6", "Unitary, modReLU without bias: ‖Ju‖ = 1", "Arjovsky et al. 2016", isometry),
    Law(
        "I7", "Linear IndRNN: E u^2T = 1/(2T + 1)", "Li et al. 2018",
        mean_squares(indrnn(8, "identity"), {10: 1 / 21}, 2000),
    ),
    Law("I8", "Antisymmetric Euler step: [(1 − εγ)² + 2ε²σ_w²(n − 1)/n]^T", "Chang et al. 2019", antisymmetric),
    Law("I9", "coRNN: Σ λ_i = n ln(1 − Δt ε), any weights and inputs", "Rusch & Mishra 2021", oscillators),
)  # fmt: skip
