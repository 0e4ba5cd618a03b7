"""Rounding to narrow floats, bit for bit against the casts of ml_dtypes."""

from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradsim.engine import formats
from gradsim.engine.formats import FORMATS, Format
from gradsim.scaled import Scaled


def rounded(x: np.ndarray, to: Format, *, shift: int = 0, flush: bool = False) -> np.ndarray:
    """`x` in the format, whose mantissas the device gets 2**shift times as large; joined in float64 on the host."""
    with np.errstate(invalid="ignore"):  # signalling NaN
        mantissa, exponent = np.frexp(x)
        found = ROUNDED(np.ldexp(mantissa, shift), (exponent - shift).astype(np.int32), to, flush)
        return np.asarray(np.ldexp(np.asarray(found.mantissa, np.float64), np.asarray(found.exponent)))


ROUNDED = jax.jit(lambda m, e, to, flush: formats.rounded(Scaled(m, e), to, flush=flush), static_argnums=(2, 3))


def equal(found: np.ndarray, expected: np.ndarray, to: Format) -> None:
    """The same bits in the format, but that one NaN is like another."""
    kind = f"u{np.dtype(to.dtype).itemsize}"
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected.astype(np.float64)))
    known = ~np.isnan(found)
    with np.errstate(over="ignore", under="ignore"):
        held = found[known].astype(np.float32).astype(to.dtype)
    np.testing.assert_array_equal(held.astype(np.float64), found[known])  # it is a number of the format
    np.testing.assert_array_equal(held.view(kind), expected[known].view(kind))


def numbers() -> np.ndarray:
    """All of bfloat16, all of float16, float32 at random in all binades, and ties of all formats."""
    patterns = np.arange(2**16, dtype=np.uint16)
    rng = np.random.default_rng(0)
    at_random = rng.integers(0, 2**32, 2**17, dtype=np.uint32).view(np.float32)
    near = np.exp2(rng.uniform(-30, 20, 2**16)).astype(np.float32)
    ties = []
    for to in FORMATS.values():  # between two numbers, and one unit of float32 beside
        size = np.ldexp(1.0, rng.integers(to.lowest, min(127, to.lowest + 60), 2**12))
        odd = np.ldexp(2 * rng.integers(0, 2 ** (to.digits + 1), 2**12) + 1.0, -to.digits - 1) * size
        below = np.ldexp(2 * rng.integers(0, 2 ** (to.digits + 1), 2**12) + 1.0, to.subnormal - 1)
        ties += [odd, below, np.nextafter(odd.astype(np.float32), np.float32(0)), to.largest * (1 + 2.0**-24)]
        ties += [to.largest, to.largest + 2.0 ** (np.frexp(to.largest)[1] - to.digits - 2)]
    joined = [patterns.view(np.dtype(jnp.bfloat16)), patterns.view(np.float16), at_random, near, -near]
    with np.errstate(over="ignore", invalid="ignore"):
        return np.concatenate([np.ravel(one).astype(np.float32) for one in (*joined, *ties)])


NUMBERS = numbers()


@pytest.mark.parametrize("name", FORMATS)
def test_every_number_is_rounded_as_ml_dtypes_casts_it(name: str) -> None:
    to = FORMATS[name]
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        expected = NUMBERS.astype(to.dtype)
    found = rounded(NUMBERS, to)
    equal(found, expected, to)
    for shift in (-90, 24):  # what the exponent holds makes no difference, nor does the size of a mantissa
        np.testing.assert_array_equal(rounded(NUMBERS, to, shift=shift), found)
    bits = np.dtype(f"u{np.dtype(to.dtype).itemsize}")
    every = np.arange(np.iinfo(bits).max + 1, dtype=bits).view(to.dtype)
    with np.errstate(invalid="ignore"):
        equal(rounded(every.astype(np.float32), to), every, to)  # each number of the format is left as it is


@pytest.mark.parametrize("name", FORMATS)
def test_numbers_of_float64_are_rounded_once(name: str) -> None:
    to = FORMATS[name]
    rng = np.random.default_rng(1)
    size = np.exp2(rng.uniform(to.subnormal - 3, np.log2(to.largest) + 1, 300))
    tie = np.ldexp(2 * rng.integers(0, 2**to.digits, 300) + 1.0, to.subnormal - 1) * (1 + 2.0**-50)
    with jax.enable_x64(True):
        found = rounded(np.concatenate([size, tie]), to)
    for x, got in zip(np.concatenate([size, tie]).tolist(), found.tolist(), strict=True):
        exact, quantum = Fraction(x), Fraction(2) ** (max(int(np.frexp(x)[1]) - 1, to.lowest) - to.digits)
        nearest = round(exact / quantum) * quantum  # Python rounds ties to even
        if nearest <= Fraction(to.largest):
            assert Fraction(got) == nearest
        else:
            assert not np.isfinite(got)


def test_far_outside_the_range_of_floats() -> None:
    x = np.array([1.0, 0.75, -0.0, np.nan, np.inf], np.float32)
    for name, to in FORMATS.items():
        small = np.asarray(formats.rounded(Scaled(jnp.asarray(x), jnp.int32(-(10**6))), to).mantissa)
        np.testing.assert_array_equal(small[:3], [0, 0, -0.0])
        large = np.asarray(formats.rounded(Scaled(jnp.asarray(x), jnp.int32(10**6)), to).mantissa)
        assert not np.isfinite(large[:2]).any(), name
        assert large[2] == 0
        assert np.isnan(small[3])
        assert np.isnan(small[4]) if name == "float8_e4m3" else np.isposinf(small[4])


def test_flushed_are_all_below_the_least_normal_number() -> None:
    for to in FORMATS.values():
        x = np.ldexp(np.array([1.0, -1 + 2.0**-20, 0.6, 1.0001], np.float32), to.lowest)
        np.testing.assert_array_equal(rounded(x, to, flush=True), [2.0**to.lowest, 0, 0, 2.0**to.lowest])
        assert np.all(rounded(x, to) != 0)


def test_trees_keep_their_shape_and_dtype() -> None:
    tree = {"a": jnp.ones((2, 3)), "b": (jnp.float32(0.3),)}
    found: Any = formats.rounded(Scaled(tree, jnp.int32(-3)), FORMATS["float8_e4m3"])
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), found.mantissa) == {
        "a": ((2, 3), jnp.float32),
        "b": (((), jnp.float32),),
    }
    assert float(found.mantissa["b"][0]) == 0.3125


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^format: got 'int8'; pass one of: bfloat16, float16, float8_e4m3"):
        formats.get("int8")
    with pytest.raises(TypeError, match=r"^dtype: got 8 of type int; pass one of"):
        formats.get(8, "dtype")
