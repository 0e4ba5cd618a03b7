"""A chain as hardware with narrow floats runs it: a second one with the same draws, rounded at every step.

What is rounded is what goes through memory: the weights, the inputs and the first state; the state after each step;
and the gradient (or the tangent J u) at its start and after each step. Within a step all is float32: products of
rounded numbers are exact there and are summed as tensor cores sum them, and biases, activations and norms are
computed on the sums, as in one fused kernel. Gains are numbers of float32 that multiply the sums: the weights that
are rounded have the variance of their law at unit gain, as if each matrix had a scale of its own.

Powers of two are held apart, as everywhere here, so that float32 itself loses nothing: subnormal numbers of the
format are kept, and what the format loses is lost to the format alone.

Source: Micikevicius et al. 2018 (mixed precision, loss scaling); Kalamkar et al. 2019 (bfloat16); Micikevicius et al.
2022 (FP8 formats, a scale for each tensor).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradsim import scaled
from gradsim.engine.chain import Binding, Chain, Drawn, Source, beyond, burned_in, in_range, take_step
from gradsim.engine.formats import Format, rounded
from gradsim.networks.network import Gains, Network, State
from gradsim.scaled import Scaled


class Rounded(NamedTuple):
    """The chain after a step: its state, and the gradient times the loss scale, as the format holds them."""

    state: Scaled
    gradient: Scaled


class States(NamedTuple):
    """A state of the exact chain, and that of the rounded one beside it, if there is one."""

    exact: Scaled
    rounded: Any  # Scaled, or None where nothing is rounded


@dataclass(frozen=True)
class Hardware:
    """What rounds one random network's chain, whatever its gains."""

    to: Format
    bind: Binding

    @classmethod
    def of(cls, to: Format, bind: Binding) -> "Hardware":
        """The hardware that runs the chain of these weights; those that all steps share are rounded here, once."""
        return cls(to, replace(bind, shared=_held(to, bind.shared)))

    def initial_state(self, gains: Gains) -> Scaled:
        """The state before step 0, of each chain."""
        chain = self.bind(gains)
        chain = replace(chain, first_input=_held(self.to, chain.first_input))
        state: Scaled = chain.each(self._round)(chain.initial_state())
        return state

    def next_state(self, gains: Gains, drawn: Drawn, state: Scaled) -> Scaled:
        """The state after a step, of each chain."""
        chain = self.bind(gains)

        def one(state: Scaled, inputs: Array | None) -> Scaled:
            step = chain.step(_held(self.to, drawn._replace(inputs=inputs)))
            return self._round(take_step(step, state))

        after: Scaled = chain.each(one)(state, chain.inputs(drawn))
        return after

    def _round(self, value: Scaled) -> Scaled:
        return rounded(value, self.to)

    def start(self, vector: State, exponent: Array, loss_scale: Array) -> Scaled:
        """The gradient vector · 2^exponent, leaves [1, …], as it sets out."""
        power = scaled.exponent_of(loss_scale)
        fraction = scaled.times_power_of_two(loss_scale, -power)
        return self._kept(Scaled(jax.tree.map(lambda leaf: fraction * leaf[0], vector), exponent + power))

    def ahead(self, gains: Gains, drawn: Drawn, before: Rounded) -> Rounded:
        """The chain after a step, whose derivative takes the tangent along."""
        step = self.bind(gains).step(_held(self.to, drawn))
        here, missing = in_range(before.state)
        new, linear, _ = jax.linearize(step, here, has_aux=True)
        state = self._round(beyond(step, here, missing, new))
        return Rounded(state, self._kept(before.gradient._replace(mantissa=linear(before.gradient.mantissa))))

    def back(self, gains: Gains, drawn: Drawn, state: Scaled, gradient: Scaled) -> Scaled:
        """The gradient with respect to the state before a step."""
        step = self.bind(gains).step(_held(self.to, drawn))
        _, pullback, _ = jax.vjp(step, in_range(state)[0], has_aux=True)
        return self._kept(gradient._replace(mantissa=pullback(gradient.mantissa)[0]))

    def _kept(self, gradient: Scaled) -> Scaled:
        return self._round(_normal(gradient))


def first_states(source: Source, bind: Binding, hardware: Hardware | None, burn_in: int) -> Callable[[Gains], States]:
    """The states after `burn_in` steps, as a function of the gains."""

    def of(gains: Gains) -> States:
        chain = bind(gains)
        first = States(chain.initial_state(), hardware and hardware.initial_state(gains))
        start: States = burned_in(source, lambda drawn, both: next_states(chain, hardware, drawn, both), first, burn_in)
        return start

    return of


def next_states(chain: Chain, hardware: Hardware | None, drawn: Drawn, both: States) -> States:
    """Those after a step."""
    exact = chain.take_step(drawn, both.exact)
    return States(exact, hardware and hardware.next_state(chain.gains, drawn, both.rounded))


def unscaled(network: Network, gradient: Scaled, loss_scale: Array) -> Scaled:
    """The observed part of the gradient, the loss scale taken off in float32."""
    power = scaled.exponent_of(loss_scale)
    fraction = scaled.times_power_of_two(loss_scale, -power)
    part = jax.tree.map(lambda leaf: leaf / fraction, network.observed(gradient.mantissa))
    return _normal(Scaled(part, gradient.exponent - power))


def _held(to: Format, tree: Any) -> Any:
    """As the format holds it; the number of a step is no float."""
    zero = jnp.int32(0)
    return jax.tree.map(
        lambda leaf: rounded(Scaled(leaf, zero), to).mantissa if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf,
        tree,
    )


def _normal(value: Scaled) -> Scaled:
    """The same numbers, the largest of the finite ones in [½, 1)."""
    finite = jax.tree.map(lambda leaf: jnp.where(jnp.isfinite(leaf), leaf, jnp.zeros_like(leaf)), value.mantissa)
    shift = scaled.binary_exponent(finite)
    return Scaled(scaled.times_power_of_two(value.mantissa, -shift), value.exponent + shift)
