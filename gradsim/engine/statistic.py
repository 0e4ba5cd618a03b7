"""A statistic is data: which tangents it needs, and how it is measured.

It leaves the device as a mantissa and a power of two, and is joined in float64 on the host.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jax import Array

from gradsim import arguments, scaled
from gradsim.engine.products import Bundle
from gradsim.engine.streams import observed_size, paired
from gradsim.networks.network import Network
from gradsim.scaled import Scaled


class View(NamedTuple):
    """All that a statistic may read after one step; every mantissa is near 1, or 0.

    One that compares the two inputs of a pair reads both: every array then has a leading axis [2], and each chain
    exponents of its own.
    """

    network: Network
    product: Bundle | None  # row i of [n, ...] is J e_i forward, e_i J backward
    vector: Bundle | None  # [1, ...]: J u forward, the gradient backward
    state: Scaled
    preactivations: tuple[Array, ...]
    # In the order of the alphabet, not that of network.parameters.
    weight_gradients: Mapping[str, Scaled] = {}  # of this step, by field of the weights: leaves by path (`leaves_of`)
    weight_gradient_sums: Mapping[str, Scaled] = {}  # of this step and all later ones
    singular_values: Scaled | None = None  # of the product, [n] from the largest, 0 where lost; NaN but at `at`
    rounded: Scaled | None = None  # `vector` without its leading axis, as a narrow dtype has it, the loss scale off


NEEDS = ("all", "one", "weights", "weight_sums", "spectrum", "rounded")
DIRECTIONS = ("forward", "backward")
FLAGS = (
    "logarithm", "costly", "by_parameter", "by_singular_value", "infinite", "undefined", "of_pair", "by_column",
)  # fmt: skip
# Other names of a Dataset.
TAKEN = ("dead", "depth", "input", "network", "parameter", "rank", "seed", "singular_value", "start", "time", "width")


def _of_every_network(network: Network) -> None:
    """No network lacks it."""


@dataclass(frozen=True)
class Statistic:
    """A named quantity: `measure(view)` on the device, or its logarithm, joined in float64 on the host.

    `measure` returns one number, as an array or a `Scaled`; [1 + parameters] of them where `by_parameter`,
    [n] where `by_singular_value`. `needs` says what must be propagated for it: "all" tangents of a basis, "one"
    vector, the gradients of the "weights" and their "weight_sums", the "spectrum", whose singular values are there at
    the depths named by `at=`, or that vector "rounded" at each step, in a run whose dtype is a narrow format.
    `missing(network)` says why a network lacks it, or None.

    Raises: ValueError or TypeError for fields of another kind.
    """

    name: str
    long_name: str
    units: str
    measure: Callable[[View], Scaled | Array] = field(repr=False)
    needs: tuple[str, ...] = ()
    logarithm: bool = False  # is ln of what was measured the result?
    costly: bool = False  # taken at the depths named by `at=` only
    directions: tuple[str, ...] = DIRECTIONS
    missing: Callable[[Network], str | None] = field(default=_of_every_network, repr=False)
    by_parameter: bool = False  # one value for each field of the weights, after one for all of them
    by_singular_value: bool = False  # one value for each singular value, from the largest
    infinite: bool = False  # is ±inf a value of it, and not a loss?
    of_pair: bool = False  # does it compare the two inputs of a pair?
    undefined: bool = False  # may it not exist, and be NaN without a loss?
    by_column: bool = False  # is it a root mean square over the rows of `product`, which devices may then share?

    def __post_init__(self) -> None:
        for name in ("name", "long_name", "units"):
            arguments.text(name, getattr(self, name))
        if self.name in TAKEN:
            raise ValueError(f"name: got {self.name!r}; pass another than {', '.join(TAKEN)}, which a Dataset uses")
        for name in ("measure", "missing"):
            arguments.function(name, getattr(self, name))
        for name in FLAGS:
            arguments.flag(name, getattr(self, name))
        arguments.choices("needs", self.needs, NEEDS)
        arguments.choices("directions", self.directions, DIRECTIONS, least=1)
        of_weights = {"weights", "weight_sums"} & set(self.needs)
        if of_weights and (not {"one", "weights"} <= set(self.needs) or "forward" in self.directions):
            raise ValueError(
                f"needs: got {self.needs} with directions={self.directions}; pass ('one', 'weights'), perhaps "
                "'weight_sums' too, with directions=('backward',): they are gradients of one vector on its way back"
            )
        if self.by_column and (self.needs != ("all",) or self.costly or self.by_parameter or self.of_pair):
            raise ValueError(
                f"by_column: got True with needs={self.needs}; pass it with needs=('all',), for one number a depth"
            )
        if "spectrum" in self.needs and not self.costly:
            raise ValueError(
                "costly: got False with needs 'spectrum'; pass True: singular values are there at `at=` alone"
            )
        if self.by_singular_value and (self.by_parameter or "spectrum" not in self.needs):
            raise ValueError(
                f"by_singular_value: got True with needs={self.needs} and by_parameter={self.by_parameter}; pass needs "
                "with 'spectrum', and by_parameter=False"
            )

    def shape(self, network: Network) -> tuple[int, ...]:
        """That of what it measures of a network; one value for each input of a pair, unless it compares them."""
        inputs = (2,) * (paired(network) and not self.of_pair)
        if self.by_singular_value:
            return (*inputs, observed_size(network))
        return (*inputs, *(1 + len(network.parameters),) * self.by_parameter)

    def finish(self, value: Scaled) -> np.ndarray:
        """The result in float64 on the host."""
        return scaled.log(value) if self.logarithm else scaled.join(value)

    def why_missing(self, network: Network) -> str | None:
        """Why this network lacks it, or None."""
        if self.by_parameter and not network.parameters:
            return "it has no weights"
        if "weight_sums" in self.needs and not network.tied:
            return "each of its steps has weights of its own, and it needs tied weights"
        if self.of_pair and not paired(network):
            return "it compares two inputs; pass gradsim.pair(network)"
        return self.missing(network.alone)
