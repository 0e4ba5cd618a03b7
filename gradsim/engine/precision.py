"""How exactly a step's matrix products are taken: float32, or what an accelerator has that is faster."""

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp

from gradsim import arguments
from gradsim.engine.chain import Source
from gradsim.engine.streams import network_keys

# jax's names. What the first three mean differs by platform; on a CPU all are float32.
PLAIN = ("highest", "high", "default")
# Float32 in parts of fewer digits, whose products are summed in float32.
IN_PARTS = ("TF32_TF32_F32_X3", "BF16_BF16_F32_X9", "BF16_BF16_F32_X6", "BF16_BF16_F32_X3")
CHOICES = (*PLAIN, *IN_PARTS)
Precision = str | jax.lax.Precision | jax.lax.DotAlgorithmPreset


def checked(precision: Any, dtype: str) -> str:
    """jax's name of it, which may come as a `jax.lax.Precision` or `jax.lax.DotAlgorithmPreset`.

    Raises: ValueError or TypeError.
    """
    if isinstance(precision, jax.lax.Precision | jax.lax.DotAlgorithmPreset):
        precision = precision.name.lower() if precision.name.lower() in PLAIN else precision.name
    name = arguments.choice("precision", precision, CHOICES)
    if dtype == "float64" and name != "highest":
        raise ValueError(
            f"precision: got {name!r} with dtype='float64', of whose digits it keeps half at best; pass 'highest'"
        )
    return name


def refuse_elsewhere(precision: str, device: Any) -> None:
    """Raises: ValueError where XLA has no such products for the device."""
    if not there(precision, device):
        able = [one for one in CHOICES if there(one, device)]
        raise ValueError(
            f"precision: got {precision!r}, which XLA does not have for {device.platform}; pass one of: "
            f"{', '.join(able)}" + (" (there all are float32)" if device.platform == "cpu" else "")
        )


@lru_cache(maxsize=64)
def there(precision: str, device: Any) -> bool:
    """Whether XLA takes products so on this device, by compiling one; for a CPU it takes some, and computes float32."""
    if precision in PLAIN or device.platform == "cpu":
        return precision in PLAIN
    square = jax.device_put(jnp.ones((16, 16), jnp.float32), device)
    try:
        with jax.default_matmul_precision(precision):
            jax.jit(jnp.matmul).lower(square, square).compile()
    except Exception:  # of many kinds: jax's, or XLA's of that platform
        return False
    return True


def refuse_convolution(network: Any, precision: str, dtype: str) -> None:
    """A convolution has no parts: jax would take it at the lowest precision without a word.

    Raises: ValueError.
    """
    if precision in IN_PARTS and _convolves(network, dtype):
        raise ValueError(
            f"precision: got {precision!r} for {network.family}, whose step is a convolution, which XLA does not take "
            f"in parts; pass one of: {', '.join(PLAIN)}"
        )


@lru_cache(maxsize=64)
def _convolves(network: Any, dtype: str) -> bool:
    """Whether a convolution is among the operations of its step."""

    def step() -> Any:
        source = Source.of(network, network_keys(jax.random.key(0), 0), None, dtype, 1)
        chain = source.bind()({name: jnp.ones((), dtype) for name in network.gains})
        return chain.take_step(source.drawn(0), chain.initial_state())

    return "conv_general_dilated" in str(jax.make_jaxpr(step)())
