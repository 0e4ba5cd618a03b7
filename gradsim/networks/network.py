"""The one thing every architecture is: a chain of random steps.

    state' = step(weights, gains, state, input)

Over depth every step draws new weights; over time all steps share one draw (`tied`).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import numpy as np
from jax import Array
from jax.tree_util import keystr, tree_flatten_with_path
from jax.typing import DTypeLike

from gradsim.activations import Activation
from gradsim.initializers import Initializer

State = Any  # a pytree of float arrays
Weights = Any  # a pytree of float arrays
Gains = Mapping[str, Array]


@dataclass(frozen=True)
class Network(ABC):
    """A random network as a chain of steps; a family is a frozen dataclass of its static choices.

    Two networks of equal fields are equal, so they share one compilation. A subclass provides
    what follows; everything else in the package works with any such class, and `gradsim.check(network)`
    says what it breaks. Draw with `gradsim.initializers.normal` and `uniform`, and float64 measures the
    networks of float32.

    `tied` may only be given by name. Who wants another default declares it as
    `tied: bool = field(default=True, kw_only=True)`: a plain `tied: bool = True` would come before the
    fields without a default, which Python refuses when the class is made.
    """

    family: ClassVar[str]
    axis: ClassVar[str] = "depth"  # the name of the chain's axis: "depth" or "time"
    axis_units: ClassVar[str] = "layer"
    state_axes: ClassVar[tuple[str, ...]] = ()  # ("tokens", "width"), or ("batch", "width"), where a state is that
    driven: ClassVar[bool] = False  # does every step read an input, or only the initial state?
    input_gain: ClassVar[str | None] = None  # the gain that multiplies every input: at zero none matters
    # field of the weights (see `leaves_of`) -> the gain that multiplies it
    parameters: ClassVar[Mapping[str, str]] = {}

    tied: bool = field(default=False, kw_only=True)  # do all steps share one draw of the weights?

    @property
    def initial_shape(self) -> tuple[int, ...]:
        """The shape of the Gaussian array that `initial_state` gets where `driven`."""
        return self.input_shape

    @property
    def numbered(self) -> bool:
        """Does a step read its number, 0 for the first, as its `inputs` (int32)? Of families that are not `driven`."""
        return False

    @property
    @abstractmethod
    def gains(self) -> dict[str, float]:
        """The gains that a sweep may vary, with their defaults."""

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input: of the initial state's, or of every step's where `driven`."""

    @property
    @abstractmethod
    def activations(self) -> tuple[Activation, ...]:
        """The nonlinearities of a step, in the order in which `step` returns their arguments."""

    @abstractmethod
    def draw(self, key: Array, dtype: DTypeLike) -> Weights:
        """One step's weights of unit gain; they depend on the key alone, never on a gain."""

    @abstractmethod
    def initial_state(self, gains: Gains, inputs: Array) -> State:
        """The state before the first step, from the input, or from a Gaussian array where `driven`."""

    @abstractmethod
    def step(
        self, weights: Weights, gains: Gains, state: State, inputs: Array | None
    ) -> tuple[State, tuple[Array, ...]]:
        """One step, gains applied after the matrix products: (state', preactivations).

        `preactivations` holds the argument of each of `activations`; statistics read slopes off them.
        """

    def observed(self, state: State) -> State:
        """The part of a state that the Jacobian is taken of, and with respect to; linear in the state."""
        return state

    def output(self, state: State) -> State:
        """The part of a state that a read-out reads, in training."""
        return state

    def describe(self) -> dict[str, Any]:
        """The family and every field as plain data that JSON can hold; activations and initializers by their names."""
        return {"family": self.family, **{one.name: _plain(getattr(self, one.name)) for one in fields(self)}}


def _plain(value: Any) -> Any:
    """`value` as JSON holds it; an object of another kind by its name, or as it shows itself."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, Activation | Initializer):
        return value.name
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, tuple | list | set | frozenset):
        return [_plain(one) for one in value]
    return getattr(value, "__name__", repr(value))


def leaves_of(weights: Weights, field: str) -> dict[str, Any]:
    """The leaves of a field of the weights by their path: "w", or all below "block", such as "block.w".

    A path joins names, keys and numbers by dots, for any pytree: named tuples, dicts, lists, registered classes.
    """
    leaves = {path_name(path): leaf for path, leaf in tree_flatten_with_path(weights)[0]}
    return {path: leaf for path, leaf in leaves.items() if path == field or path.startswith(f"{field}.")}


def path_name(path: tuple[Any, ...]) -> str:
    """A path of JAX's in the form of `leaves_of`."""
    return keystr(path, simple=True, separator=".")
