"""A network describes itself as plain data."""

import json
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
import pytest
from families import FAMILIES

import gradsim as gs
from gradsim import Network
from gradsim.networks.depth.feedforward import Feedforward


@pytest.mark.parametrize("network", FAMILIES.values(), ids=FAMILIES)
def test_every_family_survives_json(network: Network) -> None:
    described = network.describe()
    assert json.loads(json.dumps(described)) == described
    assert set(described) == {"family", *(one.name for one in fields(network))}
    assert described["family"] == network.family


def test_what_is_described_is_what_was_chosen() -> None:
    assert gs.residual(6, "elu", "sparse", form="pre_activation", scaling="inverse_depth", layers=9).describe() == {
        "family": "residual", "width": 6, "activation": "elu", "initializer": "sparse", "form": "pre_activation",
        "scaling": "inverse_depth", "layers": 9, "tied": False,
    }  # fmt: skip
    recurrence = gs.linear_recurrence(5, ring=(0.5, 0.9)).describe()
    assert recurrence["ring"] == [0.5, 0.9]
    assert gs.batchnorm(4, 4).describe()["epsilon"] == 1e-5
    assert gs.gru(5).describe()["chrono"] is None


@dataclass(frozen=True)
class Own(Feedforward):
    """A family with fields of other kinds."""

    family: ClassVar[str] = "own"
    of: Any = None


@pytest.mark.parametrize(
    ("value", "plain"),
    [(len, "len"), ((1, (2.5, "a")), [1, [2.5, "a"]]), (1 + 2j, "(1+2j)"), (np.int64(3), 3), (frozenset({3}), [3])],
)
def test_fields_of_other_kinds_become_plain_data(value: Any, plain: Any) -> None:
    own = Own(width=3, activation=gs.ACTIVATIONS["relu"], initializer=gs.INITIALIZERS["gaussian"], of=value)
    assert json.loads(json.dumps(own.describe()))["of"] == plain
