"""What is learned: handwritten digits, memory tasks of any length, or arrays of the user's own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random

from gradsim import arguments
from gradsim.digits import digits, labels
from gradsim.networks.network import Network

HELD_OUT_OF_GENERATED = 1000  # samples: the standard error of an accuracy is then 1.6 % at most
FIRST_HELD_OUT = 2**30  # the number of the first of them; training samples have smaller ones
CLOSE = 0.04  # an output of the adding problem so close to its target is right (Hochreiter & Schmidhuber 1997)


class Sample(NamedTuple):
    """One example, or many with axes in front: what goes in, and the labels (int32) or numbers that should come out."""

    inputs: Any
    targets: Any


@dataclass(frozen=True)
class Task:
    """All that is static in a data set: `take(source, i)` is sample number i."""

    name: str
    shape: tuple[int, ...]  # of a sample's inputs: [*features], or [time, *features] where it is a sequence
    outputs: int  # labels, or numbers, that each sample asks for
    classes: int  # of each label; 0 where numbers are asked for
    take: Callable[[Any, Array], Sample]

    @property
    def read_out(self) -> int:
        """The width of a read-out: a logit for each class of each label, or the numbers themselves."""
        return self.outputs * max(1, self.classes)


class Data(NamedTuple):
    """A task with its samples: `training` of them, numbers 0, 1, …, and the numbers of those held out."""

    task: Task
    source: Any  # a pytree of arrays that `take` reads
    training: int
    held_out: np.ndarray


@dataclass(frozen=True)
class Generated:
    """A task whose samples are made from random keys, so that none is seen twice: see `copy_task`."""

    name: str
    features: int
    outputs: int
    classes: int
    shortest: int
    draw: Callable[[Array, int, Any], Sample]  # of a key, a length and a dtype

    def at(self, length: int, key: int, dtype: str) -> Data:
        """Sequences of this length."""
        if length < self.shortest:
            raise ValueError(f"depth: got {length}; a sequence of {self.name!r} has at least {self.shortest} steps")
        take = _TakeGenerated(self.draw, length, dtype)
        task = Task(self.name, (length, self.features), self.outputs, self.classes, take)
        stream = random.fold_in(random.fold_in(random.key(key), 0), 3)  # no network's: each splits its own in three
        numbers = np.arange(FIRST_HELD_OUT, FIRST_HELD_OUT + HELD_OUT_OF_GENERATED)
        return Data(task, np.asarray(random.key_data(stream)), FIRST_HELD_OUT, numbers)


@dataclass(frozen=True)
class _TakeGenerated:
    """Sample number i of a source that is a key's data."""

    draw: Callable[[Array, int, Any], Sample]
    length: int
    dtype: str

    def __call__(self, source: Array, i: Array) -> Sample:
        return self.draw(random.fold_in(random.wrap_key_data(source), i), self.length, self.dtype)


def _take_given(source: Sample, i: Array) -> Sample:
    return Sample(source.inputs[i], source.targets[i])


@dataclass(frozen=True)
class _Copy:
    """See `copy_task`."""

    symbols: int
    alphabet: int

    def __call__(self, key: Array, length: int, dtype: Any) -> Sample:
        shown = random.randint(key, (self.symbols,), 0, self.alphabet, jnp.int32)
        read = jnp.concatenate([shown, jnp.full((length - self.symbols,), self.alphabet, jnp.int32)])
        return Sample(jax.nn.one_hot(read, self.alphabet + 1, dtype=dtype), shown)


def _adding(key: Array, length: int, dtype: Any) -> Sample:
    """Values from [0, 1), of which one in either half is marked; the answer is the sum of these two."""
    u = random.uniform(key, (length + 2,), jnp.float32)
    half, (first, second) = length // 2, u[length:]
    marks = jnp.stack([jnp.floor(first * half), half + jnp.floor(second * (length - half))]).astype(jnp.int32)
    values, marked = u[:length].astype(dtype), jnp.sum(jax.nn.one_hot(marks, length, dtype=dtype), axis=0)
    return Sample(jnp.stack([values, marked], axis=-1), jnp.sum(values * marked)[None])


def copy_task(symbols: int = 1, alphabet: int = 8) -> Generated:
    """The copy task: the first steps show random symbols, all later ones a blank, and the last state must name them.

    A step reads a one-hot vector of alphabet + 1 entries, the last for the blank; `depth` is the length of a
    sequence, so the gradient of the first symbol comes back over depth − 1 steps. Chance is 1/alphabet.

    Raises: ValueError or TypeError for what is no positive whole number, and for fewer than 2 symbols to choose from.
    Source: Hochreiter & Schmidhuber 1997; Arjovsky, Shah & Bengio 2016, here answered in one read-out at the end.
    """
    symbols, alphabet = arguments.size("symbols", symbols), arguments.size("alphabet", alphabet, minimum=2)
    return Generated("copy", alphabet + 1, symbols, alphabet, symbols, _Copy(symbols, alphabet))


# Two numbers a step: a value from [0, 1), and 1 at the two values whose sum is asked for.
ADDING = Generated("adding", 2, 1, 0, 2, _adding)
FILES: Mapping[str, tuple[int, ...]] = {"digits": (64,), "digits_rows": (8, 8), "digits_pixels": (64, 1)}
NAMES = (*FILES, "copy", "adding")
WANTED = f"one of: {', '.join(NAMES)}; gradsim.copy_task(…); or a pair of arrays (inputs, targets)"


def get(
    data: Any, network: Network, *, depth: Any, classes: Any, held_out: float, key: int, dtype: str
) -> tuple[Data, Any]:
    """The data set for this network, and its depth: that of the sequences where it is not given.

    Raises: ValueError or TypeError naming the argument.
    """
    if isinstance(data, Generated) or (isinstance(data, str) and data in ("copy", "adding")):
        generated = data if isinstance(data, Generated) else copy_task() if data == "copy" else ADDING
        _fits_time(generated.name, network, sequence=True)
        if classes is not None:
            raise ValueError(f"classes: got {arguments.shown(classes)}; {generated.name!r} knows them, leave it out")
        found = generated.at(arguments.whole("depth", depth, maximum=10**7), key, dtype)
    else:
        name, inputs, targets = _arrays(data)
        if isinstance(data, str):
            _fits_time(name, network, sequence=name != "digits")
        inputs, depth = _in_time(name, inputs, network, depth)
        found = _given(name, inputs, targets, classes, held_out, key, dtype)
    read_in(found.task, network)
    return found, depth


def _arrays(data: Any) -> tuple[str, np.ndarray, Any]:
    """The name, the inputs and the targets."""
    if isinstance(data, str):
        arguments.choice("data", data, NAMES)
        return data, digits().reshape(-1, *FILES[data]), labels()
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise TypeError(f"data: {arguments.got(data)}; pass {WANTED}")
    inputs = arguments.numbers("data", data[0], f"inputs as an array of numbers [samples, …], or {WANTED}")
    if inputs.ndim < 2 or not inputs.size or not np.all(np.isfinite(inputs)):
        raise ValueError(f"data: got inputs of shape {list(inputs.shape)}; pass finite numbers [samples, …]")
    return "given", inputs, data[1]


def _fits_time(name: str, network: Network, *, sequence: bool) -> None:
    if network.driven != sequence:
        what = "reads an input at every step" if network.driven else "reads one input, before its first step"
        fitting = [one for one in NAMES if (one != "digits") == network.driven]
        raise ValueError(f"data: got {name!r}; {network.family} {what}: pass {', '.join(fitting)}, or arrays")


def _in_time(name: str, inputs: np.ndarray, network: Network, depth: Any) -> tuple[np.ndarray, Any]:
    """The first `depth` steps of sequences; samples without time as they are."""
    if not network.driven:
        return inputs, depth
    if inputs.ndim < 3:
        raise ValueError(f"data: got inputs of shape {list(inputs.shape)}; pass [samples, time, features]")
    depth = inputs.shape[1] if depth is None else arguments.whole("depth", depth)
    if depth > inputs.shape[1]:
        raise ValueError(
            f"depth: got {depth}; the sequences of {name!r} have {inputs.shape[1]} steps, pass at most so many"
        )
    return inputs[:, :depth], depth


def _given(name: str, inputs: np.ndarray, targets: Any, classes: Any, held_out: float, key: int, dtype: str) -> Data:
    """Arrays in a random order that depends on the key alone; the last of them are held out."""
    answers, classes = _targets(targets, len(inputs), classes, dtype)
    count = round(held_out * len(inputs))
    if not 0 < count < len(inputs):
        raise ValueError(f"held_out: got {held_out} of {len(inputs)} samples; hold out one at least, and not all")
    order = np.random.default_rng(key).permutation(len(inputs))
    source = Sample(arguments.in_dtype("data", inputs, dtype)[order], answers[order])
    task = Task(name, inputs.shape[1:], answers.shape[1], classes, _take_given)
    return Data(task, source, len(inputs) - count, np.arange(len(inputs) - count, len(inputs)))


def _targets(targets: Any, samples: int, classes: Any, dtype: str) -> tuple[np.ndarray, int]:
    """Labels as int32 and the number of classes, or numbers and 0; both [samples, outputs]."""
    wanted = f"targets [{samples}] or [{samples}, outputs], whole numbers for labels or real ones"
    given = arguments.numbers("data", targets, wanted)
    if given.ndim not in (1, 2) or len(given) != samples or not given.size:
        raise ValueError(f"data: got targets of shape {list(given.shape)}; pass {wanted}")
    if not np.all(np.isfinite(given)):
        raise ValueError(f"data: got targets that are NaN or infinite; pass {wanted}")
    answers = given.reshape(samples, -1)
    if np.asarray(targets).dtype.kind == "f":
        if classes is not None:
            raise ValueError(f"classes: got {arguments.shown(classes)} with real targets; leave it out, or pass labels")
        return arguments.in_dtype("data", answers, dtype), 0
    count = int(answers.max()) + 1 if classes is None else arguments.size("classes", classes, minimum=2)
    wrong = answers[(answers < 0) | (answers >= count)]
    if wrong.size:
        raise ValueError(f"data: got the label {int(wrong.flat[0])}; pass labels from 0 to {max(1, count - 1)}")
    if count < 2:
        raise ValueError("data: got the label 0 alone; pass labels of two classes at least, or classes=")
    return answers.astype(np.int32), count


def coupled(network: Network) -> bool:
    """Is a state a whole batch, whose samples meet in the network?"""
    return network.state_axes[:1] == ("batch",)


def sample_shape(network: Network) -> tuple[int, ...]:
    """The shape of what one sample gives the network: its first state, or the input of a step."""
    return network.input_shape[1:] if coupled(network) else network.input_shape


def read_in(task: Task, network: Network) -> tuple[int, int] | None:
    """The sizes of the linear map that a read-in is, or None where sizes agree.

    Features are dealt out evenly and in order to the positions (tokens, pixels) of the input; each position is read
    by the same map.

    Raises: ValueError where they cannot be.
    """
    shape, features = sample_shape(network), int(np.prod(task.shape[1:] if network.driven else task.shape))
    positions = int(np.prod(shape[:-1]))
    if features % positions:
        raise ValueError(
            f"data: got {features} features of {task.name!r}, which the {positions} positions of {network.family} "
            f"cannot share evenly; pass a network with a number of positions that divides {features}, or other data"
        )
    sizes = (features // positions, shape[-1])
    return None if sizes[0] == sizes[1] else sizes
