"""Lyapunov exponents of a chain, by the QR method: how fast the volumes that k tangents span grow a step.

Orthonormal tangents are pushed through some steps and made orthonormal again, A = Rᵀ Q, and Π |R_ii| over all these
factors is the growth: exactly that of a factor after every step. How many steps lie between two of them is chosen as
the run goes. A group of steps whose row i has come so near to the span of those before it that rounding over R_ii
would exceed the tolerance, max_i ‖a_i‖ / R_ii > limit, is taken again with fewer.

Source: Benettin et al. 1980; Shimada & Nagashima 1979.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from jax.flatten_util import ravel_pytree
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Int

from gradsim import scaled
from gradsim.draws import normal
from gradsim.engine import products
from gradsim.engine.chain import Chain, Drawn, Source, beyond, in_range
from gradsim.engine.grouping import next_interval
from gradsim.engine.orthogonal import orthonormalized
from gradsim.engine.products import Bundle, matrix
from gradsim.engine.streams import Ahead, Keys
from gradsim.networks.network import Gains, Network, State, Weights
from gradsim.scaled import Scaled


class Frame(NamedTuple):
    """What is static in a run."""

    network: Network
    tangents: int
    dtype: DTypeLike
    silent: bool = False  # inputs of zeros: they meet no gain but zeros


class Seed(NamedTuple):
    """What the networks of one seed share."""

    keys: Keys
    normals: Array  # that are drawn once
    shared: Weights | None  # the weights of a tied network
    inputs: Array | None  # [*input_shape], or [steps, *input_shape] where driven; Gaussian if None


class Point(NamedTuple):
    """Where a network is: its state, and orthonormal tangents [k, n], of zeros for those that were lost."""

    state: Scaled
    rows: Float[Array, "*batch k n"]
    doubtful: Bool[Array, "*batch k"]  # was nothing but rounding left of a tangent at the last factor?


class Run(NamedTuple):
    """A run between two calls: points of leaves [seeds, cells, …]."""

    point: Point
    interval: Int[Array, ""]  # the steps to the next factor
    factors: Int[Array, ""]  # how many there have been
    spread: Float[Array, "seeds cells k"]  # the largest ‖a_i‖ / R_ii


@dataclass(frozen=True)
class Streamed(Source):
    """A source that hashes each step's keys as the step is taken: its memory does not grow with the depth."""

    keys: Keys
    silent: bool

    def weights(self, t: Array | int) -> Weights:
        return self.network.draw(random.fold_in(self.keys.weights, t), self.dtype)

    def input(self, t: Array | int) -> Array:
        if self.silent:
            return jnp.zeros(self.network.input_shape, self.dtype)
        if self.inputs is not None:
            return super().input(t)
        return normal(random.fold_in(self.keys.inputs, t), self.network.input_shape, self.dtype)


def source(frame: Frame, seed: Seed) -> Source:
    """Where the networks of this seed take their weights and inputs from."""
    ahead = Ahead(seed.keys.weights, seed.keys.inputs, seed.normals)
    return Streamed(frame.network, ahead, seed.inputs, frame.dtype, seed.keys, frame.silent)


def begin(frame: Frame, keys: Keys, normals: Array, inputs: Array | None, gains: Gains) -> tuple[Seed, Run]:
    """The seeds with the weights that their steps share, and a run before its first step.

    `keys`, `normals` and `inputs` have leaves [seeds, …], `gains` [cells]. All networks start from the same tangents,
    which no network's weights know.
    """
    seeds = Seed(keys, normals, None, inputs)
    if frame.network.tied:
        seeds = seeds._replace(shared=jax.vmap(lambda seed: source(frame, seed).weights(0))(seeds))

    state = jax.vmap(lambda seed: jax.vmap(lambda cell: _chain(frame, seed, cell).initial_state())(gains))(seeds)
    n = sum(leaf[0, 0].size for leaf in jax.tree.leaves(state.mantissa))
    rows, _ = orthonormalized(normal(random.key(0), (frame.tangents, n), frame.dtype))
    rows = jnp.broadcast_to(rows, (*state.exponent.shape, *rows.shape))
    point = Point(state, rows, jnp.zeros(rows.shape[:-1], bool))
    one, none = jnp.ones((), jnp.int32), jnp.zeros((), jnp.int32)
    return seeds, Run(point, one, none, jnp.ones(rows.shape[:-1], frame.dtype))


def advance(
    frame: Frame, seeds: Seed, gains: Gains, run: Run, first: Int[Array, ""], last: Int[Array, ""], limit: Array
) -> tuple[Run, Scaled]:
    """The run after the steps first ≤ t < last, and the growth of every tangent over them, [seeds, cells, k].

    Their product, the R_ii multiplied up, comes as mantissa and exponent, 0 for what a step has mapped to zero.
    """

    def turn(carry: tuple[Array, Run, Scaled]) -> tuple[Array, Run, Scaled]:
        t, run, growth = carry
        steps = jnp.minimum(run.interval, last - t)
        point, grown, spread, _ = group(frame, seeds, gains, run.point, t, steps)
        worst = jnp.max(spread)
        accepted = (worst <= limit) | (steps == 1)
        interval = next_interval(run.interval, steps, jnp.log(worst), jnp.log(limit))
        new = Run(point, interval, run.factors + 1, jnp.maximum(run.spread, spread))
        kept = run._replace(interval=jnp.minimum(new.interval, jnp.maximum(steps // 2, 1)))
        here = jnp.where(accepted, t + steps, t)
        return here, *jax.tree.map(lambda a, b: jnp.where(accepted, a, b), (new, _times(growth, grown)), (kept, growth))

    shape = run.point.rows.shape[:-1]
    growth = Scaled(jnp.ones(shape, run.point.rows.dtype), jnp.zeros(shape, jnp.int32))
    _, run, growth = lax.while_loop(lambda carry: carry[0] < last, turn, (first, run, growth))
    return run, growth


def along(
    frame: Frame,
    seeds: Seed,
    gains: Gains,
    done: tuple[Run, Scaled],
    edges: Int[Array, " edges"],
    parts: tuple[Array, Array],
    limit: Array,
) -> tuple[Run, Scaled]:
    """The run and the growth over each part, leaves [edges − 1, seeds, cells, k], after the parts from one to another.

    Part i are the steps from edges[i] to edges[i + 1].
    """

    def part(i: Array, done: tuple[Run, Scaled]) -> tuple[Run, Scaled]:
        run, growth = advance(frame, seeds, gains, done[0], edges[i], edges[i + 1], limit)
        return run, jax.tree.map(lambda every, one: every.at[i].set(one), done[1], growth)

    return lax.fori_loop(*parts, part, done)


def _chain(frame: Frame, seed: Seed, gains: Gains) -> Chain:
    return Chain(frame.network, gains, seed.shared, source(frame, seed).first_input())


def group(
    frame: Frame, seeds: Seed, gains: Gains, point: Point, t: Array, steps: Array
) -> tuple[Point, Scaled, Array, Array]:
    """The points after some steps and one factor, the growth [seeds, cells, k], the spread, and r up to a factor."""

    def step(i: Array, carry: tuple[Scaled, Bundle]) -> tuple[Scaled, Bundle]:
        def of_seed(seed: Seed, carry: tuple[Scaled, Bundle]) -> tuple[Scaled, Bundle]:
            drawn = source(frame, seed).drawn(t + i)
            return jax.vmap(lambda cell, carry: taken(_chain(frame, seed, cell), drawn, carry))(gains, carry)

        return jax.vmap(of_seed)(seeds, carry)

    carry = point.state, _each(lambda point: products.start(tree(point)))(point)
    state, bundle = lax.fori_loop(0, steps, step, carry)
    rows, exponent = _each(normal_rows)(bundle)
    q, r, lost, doubtful = factored(rows, point.doubtful)
    told, spread = _each(_losses)(r, lost, exponent, jnp.any(point.rows != 0, axis=-1))
    # What is lost within several steps may only be beyond rounding: a group of one step will tell.
    spread = jnp.where(told & (steps > 1), jnp.inf, spread)
    diagonal = jnp.where(lost, 0, jnp.abs(jnp.diagonal(r, axis1=-2, axis2=-1)))
    growth = Scaled(diagonal, exponent + bundle.exponent[..., None])
    return Point(state, q, doubtful), growth, spread, _each(_to_size)(r, exponent)


def factored(rows: Float[Array, "seeds cells k n"], doubtful: Bool[Array, "seeds cells k"]) -> tuple[Array, ...]:
    """(q, r, lost, doubtful): the orthonormal factors, rows = rᵀ q, and which rows are zero or depend on others.

    A lost row is zero in q. It must come after all others: the vector in its place would take a part of them. So the
    first one that does not is set to zero and moved to the end, as long as there is one.
    """

    def turn(carry: Any) -> Any:
        _, dead, *_ = carry
        found = _each(_ordered)(rows, dead, doubtful)
        misplaced = _in_the_way(found[2]) & ~dead
        first = misplaced & (jnp.cumsum(misplaced, axis=-1) == 1)
        return jnp.any(first), dead | first, *found

    dead = jnp.all(rows == 0, axis=-1)
    found = _each(_in_place)(rows, dead, doubtful)  # of nearly all rows that is all, and the loop takes no turn
    return lax.while_loop(lambda carry: carry[0], turn, (jnp.any(_in_the_way(found[2])), dead, *found))[2:]


def _in_the_way(lost: Bool[Array, "seeds cells k"]) -> Bool[Array, "seeds cells k"]:
    """Which lost rows come before one that is not."""
    later = jnp.flip(lax.cummax(jnp.flip((~lost).astype(jnp.int32), -1), axis=2), -1)
    return lost & (later > 0)


def _in_place(rows: Array, dead: Array, doubtful: Array) -> tuple[Array, Array, Array, Array]:
    """A row of which only rounding is left is lost where more rows than columns are not zero, or at the second time.

    At the first it may be chance: one random matrix in 10⁵ is singular in float32. Where it is not, it happens again.
    """
    q, r = orthonormalized(rows)
    norm = jnp.sqrt(jnp.sum(r * r, axis=0))
    nothing = jnp.abs(jnp.diagonal(r)) <= 2 * rows.shape[1] * float(jnp.finfo(r.dtype).eps) * norm  # NaN is not
    columns = jnp.sum(jnp.any(rows != 0, axis=0))
    lost = dead | (nothing & (doubtful | (jnp.cumsum(~nothing) >= columns)))
    return jnp.where(lost[:, None], 0, q), r, lost, nothing


def _ordered(rows: Array, dead: Array, doubtful: Array) -> tuple[Array, Array, Array, Array]:
    """The same with the dead rows as zeros at the end, and all brought back to their places."""
    order = jnp.argsort(dead, stable=True)
    back = jnp.argsort(order)
    q, r, lost, doubtful = _in_place(jnp.where(dead[:, None], 0, rows)[order], dead[order], doubtful[order])
    return q[back], r[back][:, back], lost[back], doubtful[back]


def taken(chain: Chain, drawn: Drawn, carry: tuple[Scaled, Bundle]) -> tuple[Scaled, Bundle]:
    """A state and its tangents after one step more."""
    state, bundle = carry
    here, missing = in_range(state)
    step = chain.step(drawn)
    new, linear, _ = jax.linearize(step, here, has_aux=True)
    return beyond(step, here, missing, new), products.push(bundle, linear)


def tree(point: Point) -> State:
    """The tangents [k, n] of one network in the form of its state."""
    return jax.vmap(ravel_pytree(point.state.mantissa)[1])(point.rows)


def normal_rows(bundle: Bundle) -> tuple[Array, Array]:
    """The tangents of one network as rows with their largest entries in [½, 1), and a power of two for each."""
    rows = matrix(bundle.mantissa)
    exponent = scaled.exponent_of(jnp.max(jnp.abs(rows), axis=1))
    return jax.vmap(scaled.times_power_of_two)(rows, -exponent), exponent


def _losses(r: Array, lost: Array, exponent: Array, alive: Array) -> tuple[Array, Array]:
    """Of the k rows of one network: which of those alive are lost or soon will be, and ‖a_i‖ / R_ii of the others."""
    norm, diagonal = jnp.sqrt(jnp.sum(r * r, axis=0)), jnp.abs(jnp.diagonal(r))
    # Rows of very different sizes leave the floats: one power of two brings all of them back.
    least = int(jnp.finfo(r.dtype).minexp) // 2
    small = exponent < jnp.max(jnp.where(alive, exponent, scaled.NOTHING)) + least
    return (lost | small) & alive, jnp.where(lost | jnp.isnan(norm), 1, norm / jnp.where(lost, 1, diagonal))


def _to_size(r: Array, exponent: Array) -> Array:
    """The factor of the rows as they were, up to one power of two; column j holds row j."""
    return jax.vmap(scaled.times_power_of_two, (1, 0), 1)(r, exponent - jnp.max(exponent))


def _times(growth: Scaled, factor: Scaled) -> Scaled:
    """The product, entry by entry, with mantissas in [½, 1)."""
    mantissa = growth.mantissa * factor.mantissa
    shift = scaled.exponent_of(mantissa)
    exponent = growth.exponent + factor.exponent + shift
    return Scaled(scaled.times_power_of_two(mantissa, -shift), jnp.where(mantissa == 0, 0, exponent))


def _each(function: Any) -> Any:
    """The function of one network for all, leaves [seeds, cells, …]."""
    return jax.vmap(jax.vmap(function))
