"""A step of the engine on shapes alone: what a statistic of one's own does wrong shows before anything is compiled."""

from functools import lru_cache

import jax
import jax.numpy as jnp

from gradsim import arguments
from gradsim.engine.backward import backward
from gradsim.engine.chain import Source
from gradsim.engine.forward import Cells, Task, forward
from gradsim.engine.statistic import Statistic
from gradsim.engine.statistics import STATISTICS
from gradsim.engine.streams import network_keys
from gradsim.engine.tiling import Tiling
from gradsim.networks.network import Network
from gradsim.scaled import Scaled


@lru_cache(maxsize=256)
def try_statistic(
    network: Network, statistic: Statistic, direction: str, dtype: str, format: str | None = None
) -> None:
    """Whether this network has the statistic, and `measure` returns what it must; those of gradsim do.

    Raises: ValueError that names the statistic.
    """
    why = statistic.why_missing(network)
    if why:
        raise ValueError(f"statistics: {statistic.name!r} is not there for {network.family}: {why}")
    own = type(statistic.measure).__module__.startswith("gradsim.")  # those of formats, which are made anew each time
    if own or STATISTICS.get(statistic.name) is statistic:
        return
    if statistic.name in network.gains:
        raise ValueError(f"statistics: {statistic.name!r} is a gain of {network.family}; pass one of another name")
    shape = statistic.shape(network)
    wanted = f"measure must return real numbers of shape {list(shape)}, as an array or a Scaled"
    try:
        found = _one_step(network, statistic, direction, dtype, format)
        got = [(leaf.shape[2:], leaf.dtype) for leaf in (found.mantissa, found.exponent)]
    except Exception as error:
        reason = arguments.reason(error)
        raise ValueError(f"statistics: {statistic.name!r} cannot be measured ({reason}); {wanted}") from error
    for part, kind in zip(got, "fi", strict=True):
        if part[0] != shape or part[1].kind != kind:
            shown = f"{part[1].name} of shape {list(part[0])}"
            raise ValueError(f"statistics: {statistic.name!r} measures {shown}; {wanted}")


def _one_step(network: Network, statistic: Statistic, direction: str, dtype: str, format: str | None) -> Scaled:
    """The shapes of what one step measures, leaves [1, 1, …]."""

    def one() -> Scaled:
        source = Source.of(network, network_keys(jax.random.key(0), 0), None, dtype, 1)
        cells = Cells({name: jnp.ones(1, dtype) for name in network.gains}, loss_scale=jnp.ones(1, dtype))
        run = {"forward": forward, "backward": backward}[direction]
        return run(source, cells, Task((statistic,), 1, Tiling(1, 1), format=format))[statistic.name]

    with jax.enable_x64(dtype == "float64"):
        return jax.eval_shape(one)
