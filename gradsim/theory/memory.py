"""What recurrences with closed forms remember: the mean square of their products after any number of steps."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import scipy

from gradsim import arguments
from gradsim.networks.network import Network
from gradsim.networks.time.antisymmetric import AntisymmetricRNN
from gradsim.networks.time.delta_rule import DeltaNet
from gradsim.networks.time.elementwise import IndRNN, MinGRU, MinLSTM
from gradsim.networks.time.linear_attention import RWKV6, RetNet
from gradsim.networks.time.linear_recurrence import LinearRecurrence
from gradsim.networks.time.slstm import SLSTM, forget_start
from gradsim.networks.time.state_space import S4D, Mamba, Mamba2
from gradsim.networks.time.unitary import UnitaryRNN
from gradsim.networks.time.xlstm import MLSTM
from gradsim.theory.given import Number

NODES = 400  # of a Gauss rule over ln Δ, or over A: e^(−Δ T) falls within a few of them at any T

Gains = Mapping[str, float]
Log = Callable[[Any, Gains, np.ndarray], np.ndarray]  # ln E‖J‖²/n


def log_memory(network: Network, steps: Number, **gains: float) -> np.ndarray:
    """½ ln(E‖J_T … J_1‖_F²/n) of a recurrence whose products have a closed form, after each of these numbers of steps.

    With r the radius and Δ log-uniform over [Δ₀, Δ₁], E‖J‖_F²/n is after T steps

        linear_recurrence   r^2T (b^(2T+2) − a^(2T+2))/((T + 1)(b² − a²)) of the ring [a, b]
        indrnn              r^2T/(2T + 1), of a linear unit
        unitary_rnn         σ_w^2T, at σ_b = 0
        antisymmetric_rnn   [(1 − εγ)² + 2ε²σ_w²(n − 1)/n]^T, linear, with new weights at each step
        s4d                 [E₁(TΔ₀) − E₁(TΔ₁)]/ln(Δ₁/Δ₀)
        mamba, mamba2       the mean of e^(−2TAΔ), at σ_Δ = 0
        min_gru, min_lstm   (E g²)^T of the gate g that keeps the memory, at σ_b = 0
        retnet, rwkv6, mlstm  the mean of w^2T over heads or channels, where decays do not read the input
        slstm               the mean of [f^T n₀/(f^T n₀ + i (1 − f^T)/(1 − f))]² over units: of="cell", constant gates
        delta_net           [1 − β(2 − β)/d_k]^T, at σ_β = 0

    exact at any width but for min_gru, min_lstm and delta_net, where the gates' arguments and the keys must be
    independent from step to step: of many features, or with weights drawn anew.

    Args:
        network: what is static.
        steps: a positive number of steps, or an array of them.
        gains: numbers; the network's own unless given.

    Returns: nat, in the shape of `steps`.
    Raises: ValueError where no closed form is known of the network at these gains, naming what would have one.
    Source: Orvieto et al. 2023 (the ring); laws I1 to I8 of the project's law book.
    """
    if not isinstance(network, Network):
        raise TypeError(f"network: {arguments.got(network)}; pass a network such as gradsim.retnet(64)")
    form = FORMS.get(type(network))
    if form is None:
        known = ", ".join(one.family for one in FORMS)
        raise ValueError(f"network: got {network.family}, of which no closed form is known; pass one of: {known}")
    values = dict(network.gains)
    for name, value in gains.items():
        values[arguments.choice("gains", name, network.gains)] = arguments.number(name, value, "a finite number")
    wanted = "positive numbers of steps"
    taken = arguments.numbers("steps", steps, wanted)
    if taken.size == 0 or not np.all((taken > 0) & np.isfinite(taken)):
        raise ValueError(f"steps: got {arguments.shown(steps)}; pass {wanted}")
    with np.errstate(divide="ignore"):  # ln 0, where nothing is left
        return (0.5 * form(network, values, taken.ravel())).reshape(taken.shape)


def _needs(network: Network, gains: Gains, **zero: float) -> None:
    """Those gains must have those values."""
    for name, value in zero.items():
        if gains[name] != value:
            alone = f"{network.family} has a closed form there alone"
            raise ValueError(f"{name}: got {gains[name]:g}; pass {value:g}: {alone}")


def _linear(network: Any) -> None:
    if network.activation.name != "identity":
        raise ValueError(
            f"network: got the activation {network.activation.name!r}; pass 'identity': {network.family} has a closed "
            "form there alone"
        )


def _ring(network: LinearRecurrence, gains: Gains, steps: np.ndarray) -> np.ndarray:
    inner, outer = network.ring
    ratio = (inner / outer) ** 2 if outer else 1.0
    if ratio == 1:
        return 2 * steps * np.log(gains["radius"] * outer)
    share = np.log(-np.expm1((steps + 1) * np.log(ratio))) if ratio else 0.0
    return 2 * steps * np.log(gains["radius"] * outer) + share - np.log((steps + 1) * (1 - ratio))


def _independent(network: IndRNN, gains: Gains, steps: np.ndarray) -> np.ndarray:
    _linear(network)
    return 2 * steps * np.log(gains["radius"]) - np.log(2 * steps + 1)


def _unitary(network: UnitaryRNN, gains: Gains, steps: np.ndarray) -> np.ndarray:
    _needs(network, gains, sigma_b=0.0)
    return 2 * steps * np.log(gains["sigma_w"])


def _antisymmetric(network: AntisymmetricRNN, gains: Gains, steps: np.ndarray) -> np.ndarray:
    _linear(network)
    if network.tied:
        raise ValueError("network: got tied weights; pass tied=False: antisymmetric_rnn has a closed form there alone")
    n, size = network.width, gains["step_size"]
    return steps * np.log((1 - size * gains["damping"]) ** 2 + 2 * (size * gains["sigma_w"]) ** 2 * (n - 1) / n)


def _s4d(network: S4D, gains: Gains, steps: np.ndarray) -> np.ndarray:
    low, high = (gains["time_scale"] * step for step in network.steps)
    if low == high:
        return -steps * low
    return np.log((scipy.special.exp1(steps * low) - scipy.special.exp1(steps * high)) / np.log(high / low))


@cache
def _gauss() -> tuple[np.ndarray, np.ndarray]:
    """Finding the nodes takes longer than all else here."""
    return np.polynomial.legendre.leggauss(NODES)


def _log_steps(network: Mamba | Mamba2, gains: Gains) -> tuple[np.ndarray, np.ndarray]:
    """Δ and ln of its weight, with what the bias adds before the softplus."""
    x, weights = _gauss()
    low, high = np.log(network.steps)
    bias = np.log(np.expm1(np.exp((low + high) / 2 + (high - low) / 2 * x))) + gains["step_bias"]
    return np.logaddexp(0, bias), np.log(weights / 2)


def _mamba(network: Mamba, gains: Gains, steps: np.ndarray) -> np.ndarray:
    _needs(network, gains, sigma_delta=0.0)
    delta, log_weights = _log_steps(network, gains)
    rates = np.arange(1, network.order + 1)
    exponents = log_weights - 2 * steps[:, None, None] * rates[:, None] * delta
    return scipy.special.logsumexp(exponents, axis=(-2, -1)) - np.log(network.order)


def _mamba2(network: Mamba2, gains: Gains, steps: np.ndarray) -> np.ndarray:
    _needs(network, gains, sigma_delta=0.0)
    delta, log_weights = _log_steps(network, gains)
    fall = 2 * steps[:, None] * delta  # the mean of e^(−fall A) over A from 1 to 16
    return scipy.special.logsumexp(log_weights - fall + np.log(-np.expm1(-15 * fall) / (15 * fall)), axis=-1)


def normal_rule() -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of the standard normal law; the trapezium rule gains digits with every node, as gates are
    analytic: 1e-9 at a gain of 100."""
    z = np.linspace(-10, 10, 2001)
    weights = np.exp(-(z**2) / 2)
    return z, weights / weights.sum()


def _min_gru(network: MinGRU, gains: Gains, steps: np.ndarray) -> np.ndarray:
    _needs(network, gains, sigma_b=0.0)
    z, weights = normal_rule()
    return steps * np.log(weights @ scipy.special.expit(gains["update_bias"] - gains["sigma_v"] * z) ** 2)


def _min_lstm(network: MinLSTM, gains: Gains, steps: np.ndarray) -> np.ndarray:
    _needs(network, gains, sigma_b=0.0)
    z, weights = normal_rule()
    log_f, log_i = (scipy.special.log_expit(gains["sigma_v"] * z + bias) for bias in (gains["forget_bias"], 0.0))
    return steps * np.log(weights @ scipy.special.expit(log_f[:, None] - log_i) ** 2 @ weights)


def _mean(log_decays: np.ndarray, steps: np.ndarray) -> np.ndarray:
    return scipy.special.logsumexp(2 * steps[:, None] * log_decays, axis=-1) - np.log(log_decays.size)


def _retnet(network: RetNet, gains: Gains, steps: np.ndarray) -> np.ndarray:
    return _mean(gains["time_scale"] * np.log1p(-(2.0 ** (-5 - np.arange(network.heads)))), steps)


def _rwkv6(network: RWKV6, gains: Gains, steps: np.ndarray) -> np.ndarray:
    _needs(network, gains, sigma_decay=0.0)
    place = np.arange(network.width) / max(network.width - 1, 1)
    return _mean(-np.exp(-6 + 5 * place ** (0.7 + 1.3 * network.layer) + gains["decay_bias"]), steps)


def _mlstm(network: MLSTM, gains: Gains, steps: np.ndarray) -> np.ndarray:
    _needs(network, gains, sigma_gate=0.0)
    return _mean(scipy.special.log_expit(np.linspace(3, 6, network.heads) + gains["forget_bias"]), steps)


def _slstm(network: SLSTM, gains: Gains, steps: np.ndarray) -> np.ndarray:
    if network.of != "cell":
        raise ValueError(f"network: got slstm of={network.of!r}; pass of='cell': slstm has a closed form there alone")
    _needs(network, gains, sigma_w=0.0, sigma_v=0.0, sigma_b=0.0)
    start = forget_start(network.width, network.layer) + gains["forget_bias"]
    log_f = (start if network.forget == "exp" else scipy.special.log_expit(start)) + 0 * steps[:, None]
    # ln i/n₀ (f^−T − 1)/(1 − f), a sum of f^−k: what came in beside what was there.
    power = np.where(log_f == 0, np.log(steps[:, None]), -np.inf)
    np.copyto(power, _log_expm1(-steps[:, None] * log_f) - _log_expm1(-log_f) - log_f, where=log_f != 0)
    came_in = gains["input_bias"] - np.log(gains["initial_normalizer"]) + power
    return scipy.special.logsumexp(2 * scipy.special.log_expit(-came_in), axis=-1) - np.log(network.width)


def _log_expm1(x: np.ndarray) -> np.ndarray:
    """ln |e^x − 1|."""
    return np.maximum(x, 0) + np.log(-np.expm1(-abs(x)))


def _delta(network: DeltaNet, gains: Gains, steps: np.ndarray) -> np.ndarray:
    _needs(network, gains, sigma_beta=0.0)
    beta = gains["beta"]
    return steps * np.log1p(-beta * (2 - beta) * network.heads / network.width)


FORMS: dict[type[Network], Log] = {
    LinearRecurrence: _ring, IndRNN: _independent, UnitaryRNN: _unitary, AntisymmetricRNN: _antisymmetric, S4D: _s4d,
    Mamba: _mamba, Mamba2: _mamba2, MinGRU: _min_gru, MinLSTM: _min_lstm, RetNet: _retnet, RWKV6: _rwkv6,
    MLSTM: _mlstm, SLSTM: _slstm, DeltaNet: _delta,
}  # fmt: skip
