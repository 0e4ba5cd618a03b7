"""What narrower floats lose of a gradient, against their own rounding and against arithmetic without a range."""

from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from inspected import Sigmoids
from jax import Array, lax

import gradsim as gs
from gradsim.inspection import formats, tap
from gradsim.inspection.block_floats import block
from gradsim.scaled import Scaled

NAMES = list(formats.FORMATS)
LOST, BEYOND = slice(1, 1 + len(NAMES)), slice(1 + 2 * len(NAMES), 1 + 3 * len(NAMES))


@jax.jit
def counts(value: Any) -> Array:
    return formats.counts([value])


@jax.jit
def counts_of_block(x: Array) -> Array:
    return formats.counts([block(x)])


def counted(value: Any) -> np.ndarray:
    """Of numbers with exponents of their own; of an array, as one block."""
    return np.asarray(counts(value) if isinstance(value, Scaled) else counts_of_block(value))


@pytest.mark.parametrize("name", NAMES[1:])
def test_counts_are_those_of_the_formats_own_rounding(name: str) -> None:
    limit = formats.limits(name)
    near = [2.0 ** (limit.subnormal - 1), 2.0**limit.subnormal, 2.0**limit.largest]
    rng = np.random.default_rng(0)
    sizes = np.concatenate([x * np.array([1 - 2**-20, 1, 1 + 2**-20, 1.06, 1.1]) for x in near])
    sizes = np.concatenate([np.exp2(rng.uniform(-125, 127, 2000)), sizes[(sizes > 2e-38) & (sizes < 3.4e38)]])
    x = np.zeros(2048, np.float32)  # of one size for all formats
    x[: sizes.size] = sizes * rng.choice([-1, 1], sizes.size)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        rounded = x.astype(formats.FORMATS[name]).astype(np.float32)
    mantissas, exponents = np.frexp(x)
    found = counted(Scaled(jnp.asarray(mantissas), jnp.asarray(exponents, jnp.int32)))
    place = NAMES.index(name)
    assert found[0] == np.count_nonzero(x)
    assert found[LOST][place] == np.count_nonzero((rounded == 0) & (x != 0))
    assert found[BEYOND][place] == np.count_nonzero(~np.isfinite(rounded))
    whole = (np.abs(x) > 2.0**-50) & (np.abs(x) < 2.0**50)  # as one slab
    found = counted(jnp.asarray(np.where(whole, x, np.float32(0))))
    assert found[LOST][place] == np.count_nonzero(rounded[whole] == 0)
    assert found[BEYOND][place] == np.count_nonzero(~np.isfinite(rounded[whole]))


def test_counts_are_right_far_outside_the_range_of_floats() -> None:
    rng = np.random.default_rng(1)
    mantissas = rng.standard_normal((40, 30)).astype(np.float32)
    exponents = np.concatenate([np.arange(-433, -393), [0]])[:40, None].astype(np.int32)  # e^-300 and above
    exponents[20:] = np.arange(-160, 160, 16)[:, None]
    found = counted(Scaled(jnp.asarray(mantissas), jnp.asarray(exponents)))
    sizes = [abs(Fraction(float(m))) * Fraction(2) ** int(e) for m, e in np.broadcast(mantissas, exponents)]
    lost = [sum(size <= Fraction(2) ** int(formats.limits(name).subnormal - 1) for size in sizes) for name in NAMES]
    scale = Fraction(formats.LOSS_SCALE)
    scaled = [
        sum(size * scale <= Fraction(2) ** int(formats.limits(name).subnormal - 1) for size in sizes) for name in NAMES
    ]
    beyond = [sum(size >= Fraction(one) for size in sizes) for one in formats.BEYOND]
    assert found.tolist() == [len(sizes), *lost, *scaled, *beyond]
    assert lost[0] >= 600
    assert beyond[0]


def test_what_is_zero_or_not_finite_is_not_counted() -> None:
    x = jnp.asarray([0.0, jnp.inf, -jnp.inf, jnp.nan, 1.0, 1e-30])
    found = counted(Scaled(x, jnp.zeros(1, jnp.int32)))
    assert found[0] == 2
    assert found[LOST].tolist() == [0, 0, 1, 1, 1]
    assert not found[BEYOND].any()
    assert not counted(jnp.zeros((3, 2))).any()
    halves = counted(jnp.asarray([2.0**-17, 2.0**-10, 2.0**-9], jnp.float16))  # a tie goes to zero
    assert halves[LOST].tolist() == [0, 0, 0, 2, 1]
    pair = counted(jnp.asarray([1e-30 + 1j, 1e-30 + 1e-30j], jnp.complex64))  # the larger part counts
    assert pair[LOST].tolist() == [0, 0, 1, 1, 1]
    assert formats.limits("float32") == (-126, -149, np.log2(float(np.finfo(np.float32).max)))


def test_shares_of_a_deep_sigmoid_model_equal_those_of_its_float64_gradient() -> None:
    model, x = Sigmoids(90, 8), np.random.default_rng(0).standard_normal((16, 8)).astype(np.float32)
    found = gs.inspect(model, x, loss=jnp.sum)
    weights = [np.asarray(layer.kernel[...], np.float64) for layer in model.layers]
    states = [x.astype(np.float64)]
    for w in weights:
        states.append(1 / (1 + np.exp(-states[-1] @ w)))
    gradient = np.ones((16, 8))
    at_layer, at_kernel = [], []
    for w, before, after in zip(weights[::-1], states[-2::-1], states[:0:-1], strict=True):
        gradient = gradient * after * (1 - after)
        at_layer.append(gradient)
        at_kernel.append(before.T @ gradient)
        gradient = gradient @ w.T
    rows = {"": found.sel(layer=[f"layers.{i}" for i in range(90)]),
            "parameter_": found.sel(parameter=[f"layers.{i}.kernel" for i in range(90)])}  # fmt: skip
    for prefix, gradients in (("", at_layer), ("parameter_", at_kernel)):
        for suffix, scale in (("", 1.0), ("_scaled", found.attrs["loss_scale"])):
            for name in NAMES:
                zero = 2.0 ** (formats.limits(name).subnormal - 1)
                expected = [np.mean(np.abs(one) * scale <= zero) for one in gradients[::-1]]
                shares = rows[prefix][f"{prefix}lost{suffix}"].sel(format=name).values
                # An entry that lies at the limit to a rounding may fall on either side.
                np.testing.assert_allclose(shares, expected, atol=1.01 / 64, rtol=0)
                assert np.mean(shares == expected) > 0.9
    lost = found.lost.sel(layer="layers.0")
    assert lost.values.tolist() == [1.0] * 5
    assert found.log_gradient.values[0] < -110
    assert not found.overflow.any()
    assert np.isfinite(found.parameter_lost).all()


def test_shares_of_a_scan_are_over_all_its_steps_and_nan_without_a_gradient() -> None:
    def model(w: Array, x: Array) -> Array:
        def step(h: Array, _: Any) -> tuple[Array, None]:
            return tap(h * w * jnp.float32(2.0**-4), "step"), None

        tap(x * 3, "unused")
        return lax.scan(step, x, None, length=10)[0]

    found = gs.inspect(model, jnp.float32(1), jnp.ones(4), loss=jnp.sum)
    # The gradients of step k are 2**(-4 (10 - k)): float16 loses none but below 2**-25.
    assert found.lost.sel(layer="step", format=["float16", "float8_e4m3"]).values.tolist() == [0.3, 0.7]
    assert found.lost_scaled.sel(layer="step", format=["float16", "float8_e4m3"]).values.tolist() == [0.0, 0.3]
    assert found.overflow_scaled.sel(layer="step", format=["float16", "float8_e4m3"]).values.tolist() == [0.0, 0.2]
    assert np.isnan(found.lost.sel(layer="unused")).all()


def test_an_output_without_entries_has_no_shares() -> None:
    found = gs.inspect(lambda w, x: tap(x @ w, "some").sum() + tap(w[:0], "none").sum(), jnp.eye(2), jnp.ones((1, 2)))
    assert np.isnan(found.lost.sel(layer="none")).all()
    assert np.isnan(found.dead.sel(layer="none"))
    assert not found.lost.sel(layer="some").any()
