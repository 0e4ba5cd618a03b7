"""Laws of the Lyapunov exponents."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import digamma, polygamma

from gradsim.engine.chain import Source
from gradsim.engine.streams import network_keys
from gradsim.laws.record import Check, Law, estimated, exact, sampled
from gradsim.networks.depth.feedforward import feedforward
from gradsim.networks.depth.residual import residual
from gradsim.networks.network import Network
from gradsim.networks.time.recurrent import vanilla_rnn
from gradsim.sweeps.lyapunov import lyapunov_exponents


def gaussian_products(effort: int, key: int) -> list[Check]:
    n, depth = 8, 256
    data = lyapunov_exponents(feedforward(n, "identity"), depth=depth, seeds=64 * effort, key=key, burn_in=0)
    half = (n - np.arange(n)) / 2
    means, deviations = (math.log(2 / n) + digamma(half)) / 2, np.sqrt(polygamma(1, half) / (4 * depth))
    return [
        sampled(f"λ_{i + 1}, n = 8, L = {depth}", data.lyapunov.isel(exponent=i), means[i], deviations[i])
        for i in range(n)
    ]


def determinants(effort: int, key: int) -> list[Check]:
    """Of a driven RNN with tied weights, from where the state is after no burn-in."""
    network, depth = vanilla_rnn(8), 64
    data = lyapunov_exponents(
        network, depth=depth, seeds=1, key=key, burn_in=0, tolerance=1e-9, dtype="float64", sigma_w=1.2
    )
    with jax.enable_x64(True):
        wanted = mean_log_determinant(network, {"sigma_w": 1.2}, depth, key)
    return [exact("Σ λ_i, tanh RNN, n = 8, T = 64", data.lyapunov.sum("exponent"), wanted, 1e-9)]


def mean_log_determinant(network: Network, gains: dict[str, float], depth: int, key: int) -> float:
    """(1/T) Σ_t ln |det J_t| of network 0, step by step."""

    @jax.jit
    def walked() -> jax.Array:
        source = Source.of(network, network_keys(jax.random.key(key), 0), None, "float64", depth)
        chain = source.bind()({name: jnp.asarray(gains.get(name, value)) for name, value in network.gains.items()})

        def step(state: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
            taken = chain.step(source.drawn(t))
            jacobian = jax.jacfwd(lambda state: taken(state)[0])(state)
            return taken(state)[0], jnp.linalg.slogdet(jacobian)[1]

        first = chain.initial_state()
        start = jnp.ldexp(first.mantissa, first.exponent)
        return jnp.mean(jax.lax.scan(step, start, jnp.arange(depth))[1])

    return float(walked())


def equally_spaced(effort: int, key: int) -> list[Check]:
    """x + aWx with a = σ/√L over the whole stack: λ_i = σ²(n − 2i)/2n, up to 1/L."""
    n, layers, seeds = 8, 512, 64 * effort
    network = residual(n, "identity", form="post_activation", scaling="inverse_sqrt_depth", layers=layers)
    data = lyapunov_exponents(network, depth=layers, seeds=seeds, key=key, burn_in=0)
    total = layers * data.lyapunov.mean("seed").to_numpy()
    error = layers * data.lyapunov.std("seed", ddof=1).to_numpy() / math.sqrt(seeds)
    return [
        estimated(f"L λ_{i}, n = 8, σ = 1", total[i - 1], error[i - 1], (n - 2 * i) / (2 * n)) for i in range(1, n + 1)
    ]


LAWS = (
    Law("A2", "Gaussian linear: λ_i = ½[ln(2σ²/N) + ψ((N−i+1)/2)]", "Newman 1986; Forrester 2013", gaussian_products),
    Law("A12", "Σ λ_i = ⟨ln |det J_t|⟩ in every network", "the product rule of determinants", determinants),
    Law("G2", "x + σ/√L W x: λ_i = σ²(n − 2i)/2n, equally spaced", "Brownian motion on GL(n)", equally_spaced),
)
