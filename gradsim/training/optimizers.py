"""The optimizers of a run: any of optax, as a function of the learning rate or finished."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from gradsim import arguments

WANTED = "pass an optax transformation, or a function of the learning rate such as optax.adam that returns one"


@dataclass(frozen=True)
class Finished:
    """An optimizer that knows its learning rate."""

    transformation: Any

    def __call__(self, rate: Any) -> Any:
        return self.transformation


class Optimizers(NamedTuple):
    """The learning rates, or None; and (make, rates) for each program that is compiled: the optimizer is make(rate)."""

    rates: np.ndarray | None
    programs: list[tuple[Callable[[Any], Any], np.ndarray]]


def get(optimizer: Any, learning_rate: Any) -> Optimizers:
    """The optimizers for these learning rates; one program serves all rates, unless Python branches on their values.

    Raises: ValueError or TypeError naming the argument.
    """
    import optax

    if isinstance(optimizer, optax.GradientTransformation):
        if learning_rate is not None:
            raise ValueError(
                f"learning_rate: got {arguments.shown(learning_rate)} beside an optimizer that has one already; leave "
                "it out, or pass a function of it, such as optimizer=optax.sgd"
            )
        return Optimizers(None, [(Finished(optimizer), np.ones(1))])
    if not callable(optimizer):
        raise TypeError(f"optimizer: {arguments.got(optimizer)}; {WANTED}")
    arguments.function("optimizer", optimizer)
    if learning_rate is None:
        raise ValueError(
            "learning_rate: got None; the optimizer is a function of it, pass one or more positive numbers"
        )
    rates = arguments.gain("learning_rate", learning_rate)
    if np.any(rates <= 0):
        raise ValueError(f"learning_rate: got {rates[rates <= 0].flat[0]}; pass one or more positive numbers")
    each = np.atleast_1d(rates)
    try:
        jax.eval_shape(lambda rate: _made(optimizer, rate) and None, jax.ShapeDtypeStruct((), "float32"))
    except jax.errors.ConcretizationTypeError:  # as some schedules do
        return Optimizers(rates, [(Finished(_made(optimizer, float(rate))), np.array([rate])) for rate in each])
    return Optimizers(rates, [(optimizer, each)])


def _made(optimizer: Any, rate: Any) -> Any:
    """optimizer(rate), which must be one of optax."""
    import optax

    try:
        with jax.numpy_dtype_promotion("standard"):
            made = optimizer(rate)
    except jax.errors.ConcretizationTypeError:
        raise
    except Exception as error:
        raise ValueError(f"optimizer: it fails with a learning rate ({arguments.reason(error)}); {WANTED}") from error
    if not isinstance(made, optax.GradientTransformation):
        raise TypeError(f"optimizer: {arguments.got(optimizer)} returned {type(made).__name__}; {WANTED}")
    return made


def named(optimizer: Any) -> str:
    """Its name, for the record."""
    return str(getattr(optimizer, "__qualname__", type(optimizer).__name__))
