"""Theory compiles as little as it can: as much time goes into that as into all its numbers."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradsim import Activation, theory

counting: list[list[str]] = []


def count(event: str, duration_secs: float, **kwargs: str | int) -> None:
    """A listener cannot be taken away again, so it writes into whichever lists there are."""
    for names in counting:
        if event.endswith("backend_compile_duration"):
            names.append(str(kwargs.get("fun_name")))


jax.monitoring.register_event_duration_secs_listener(count)


@pytest.fixture
def programs() -> Iterator[list[str]]:
    """The names of what is compiled, or loaded, from here on."""
    counting.append([])
    yield counting[-1]
    counting.clear()


@pytest.mark.parametrize("function", [jnp.tanh, jnp.sin, jax.nn.relu])
def test_what_figures_ask_of_an_activation_takes_two(function: Callable[..., Any], programs: list[str]) -> None:
    """As scripts/phase_diagram.py and scripts/critical_lines.py do: the panels, and the moments on them."""
    phi = Activation("own", lambda z: function(z), (0.0,) if function is jax.nn.relu else ())
    programs.clear()  # of the checks when it is made
    bias = np.linspace(0.1, 1, 4)
    theory.log_gain(phi, np.geomspace(0.3, 30, 8)[:, None], bias, 12, width=1)
    theory.edge_of_chaos(phi, bias)
    theory.explain_edge(phi, bias)
    theory.transient(phi, 1.5, bias, 12)
    theory.vanilla_rnn(phi, 1.5, 0.5)
    assert len(programs) == 2, programs


def test_a_correlation_takes_one_more(programs: list[str]) -> None:
    phi = Activation("own", lambda z: jnp.tanh(z))
    theory.edge_of_chaos(phi, 0.3)
    programs.clear()
    theory.feedforward(phi, [2.0, 2.5, 2.6], 0.3)
    assert len(programs) == 1, programs
    theory.correlation_map(phi, [-0.5, 0.5], 1.0, 1.5, 0.3)
    assert len(programs) == 2, programs
