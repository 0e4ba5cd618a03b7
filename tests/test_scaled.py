"""Mantissa and power of two: nothing may be lost on the way in, through or out."""

import math
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax import Array

from gradsim import scaled
from gradsim.scaled import Scaled

# XLA flushes subnormal numbers to zero on a CPU, so the smallest numbers are left out.
normal_floats = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)
arrays = st.lists(normal_floats, min_size=1, max_size=6).map(lambda values: [np.float32(value) for value in values])
exponents = st.integers(-(10**8), 10**8)


def exact(mantissa: Any, exponent: Any) -> Fraction:
    """The number itself, in rational arithmetic."""
    return Fraction(float(mantissa)) * Fraction(2) ** int(exponent)


def of(values: Any, exponent: int) -> Scaled:
    return Scaled(jnp.asarray(values, jnp.float32), jnp.asarray(exponent, jnp.int32))


def reference_log(mantissa: float, exponent: int) -> float:
    """ln |mantissa * 2**exponent|; 53 bits of the two logarithms are plenty."""
    return math.log(abs(mantissa)) + exponent * math.log(2.0)


@settings(deadline=None, max_examples=60)
@given(values=arrays, exponent=st.integers(-2000, 2000))
@example(values=[np.float32(3.4e38), np.float32(1.0)], exponent=0)
@example(values=[np.float32(2.0**126)], exponent=3)
@example(values=[np.float32(2.0**-126)], exponent=0)
def test_normalize_keeps_the_largest_value_exactly(values: list[np.float32], exponent: int) -> None:
    """Over the whole range of float32, up to 3.4e38 where the binary exponent is 128."""
    normal = scaled.normalize(of(values, exponent))
    largest = int(np.argmax(np.abs(values)))
    assert exact(normal.mantissa[largest], normal.exponent) == exact(values[largest], exponent)
    if values[largest] != 0:
        assert 0.5 <= np.max(np.abs(normal.mantissa)) < 1


@settings(deadline=None, max_examples=60)
@given(values=st.lists(st.integers(-(2**20), 2**20), min_size=1, max_size=6), exponent=st.integers(-2000, 2000))
def test_normalize_keeps_every_value_exactly(values: list[int], exponent: int) -> None:
    """Entries within 2**20 of each other all survive, to the last bit."""
    normal = scaled.normalize(of(values, exponent))
    for value, mantissa in zip(values, np.asarray(normal.mantissa), strict=True):
        assert exact(mantissa, normal.exponent) == exact(value, exponent)


def test_normalize_shares_one_exponent_over_a_tree() -> None:
    tree = {"big": jnp.asarray([8.0, -3.0]), "small": jnp.asarray([[0.25]])}
    normal = scaled.normalize(Scaled(tree, jnp.asarray(5, jnp.int32)))
    assert int(normal.exponent) == 5 + 4
    np.testing.assert_array_equal(normal.mantissa["big"], [0.5, -0.1875])
    np.testing.assert_array_equal(normal.mantissa["small"], [[0.015625]])


def test_zero_stays_zero() -> None:
    normal = scaled.normalize(of([0.0, 0.0], 7))
    np.testing.assert_array_equal(normal.mantissa, [0.0, 0.0])
    assert scaled.log(normal).tolist() == [-np.inf, -np.inf]
    assert scaled.join(normal).tolist() == [0.0, 0.0]


@settings(deadline=None, max_examples=60)
@given(mantissa=st.floats(0.5, 1.0, width=32), exponent=exponents)
def test_log_keeps_its_digits_far_outside_the_range(mantissa: float, exponent: int) -> None:
    """A log of −100,000 and more in a float32 run is good to float64's last digits."""
    got = scaled.log(of([mantissa], exponent)).item()
    assert got == pytest.approx(reference_log(mantissa, exponent), rel=1e-15, abs=1e-15)


@settings(deadline=None, max_examples=60)
@given(mantissa=st.floats(-1.0, 1.0, width=32, allow_subnormal=False), exponent=st.integers(-800, 800))
def test_join_is_exact_and_agrees_with_log(mantissa: float, exponent: int) -> None:
    value = of([mantissa], exponent)
    assert Fraction(scaled.join(value).item()) == exact(mantissa, exponent)
    if mantissa:
        # ldexp of an exact product: the two differ by the rounding of ln alone.
        assert scaled.log(value).item() == pytest.approx(math.log(abs(mantissa)) + exponent * math.log(2), abs=1e-12)


def test_join_beyond_float64_is_infinite_or_zero_without_a_warning() -> None:
    assert scaled.join(of([0.5], 5000)) == np.inf
    assert scaled.join(of([-0.5], 5000)) == -np.inf
    assert scaled.join(of([0.5], -5000)) == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_powers_of_two_are_exact_over_the_normal_range(dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        limit = -int(np.finfo(dtype).minexp)
        powers = np.arange(-limit, limit + 1)
        got = scaled.power_of_two(jnp.asarray(powers, jnp.int32), dtype)
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, np.ldexp(np.ones((), dtype), powers))


@settings(deadline=None, max_examples=60)
@given(first=st.integers(-1000, 1000), second=st.integers(-1000, 1000), shift=st.integers(-12, 12), base=exponents)
def test_sums_are_exact_where_floats_add_exactly(first: int, second: int, shift: int, base: int) -> None:
    total = scaled.add(of(first, base), of(second, base + shift))
    wanted = Fraction(first) + Fraction(second) * Fraction(2) ** shift
    mantissa = Fraction(float(total.mantissa))  # where it is zero, the exponent may be anything, and its power endless
    assert (mantissa and mantissa * Fraction(2) ** (int(total.exponent) - base)) == wanted


def test_a_sum_ignores_what_is_far_smaller() -> None:
    """Beyond the cut of power_of_two the smaller term must still vanish, not come back at 2**-126."""
    total = scaled.add(of(0.75, 100_000), of(0.5, -100_000))
    assert exact(total.mantissa, int(total.exponent) - 100_000) == Fraction(3, 4)


def test_sum_with_zero_keeps_the_other_term() -> None:
    """A zero carries an arbitrary exponent; it must not push a small number out of the range."""
    total: Scaled = scaled.add(of(0.0, 0), of(0.5, -1000))
    assert exact(total.mantissa, total.exponent) == Fraction(1, 2) * Fraction(2) ** -1000


def test_square_sum_and_size_run_over_all_leaves() -> None:
    tree: dict[str, Array] = {"a": jnp.asarray([1.0, 2.0]), "b": jnp.asarray([[3.0]])}
    assert float(scaled.square_sum(tree)) == 14.0
    assert scaled.size(tree) == 3


@settings(deadline=None, max_examples=60)
@given(terms=st.lists(st.tuples(st.integers(-1000, 1000), st.integers(0, 12)), min_size=1, max_size=8), base=exponents)
@example(terms=[(0, 12), (3, 0)], base=10**8)
def test_totals_are_exact_where_floats_add_exactly(terms: list[tuple[int, int]], base: int) -> None:
    """Each term brought to a mantissa near 1 with a power of its own; a zero's power says nothing."""
    padded = terms + [(0, 0)] * (8 - len(terms))  # one shape
    parts = [scaled.normalize(of([number], base + shift)) for number, shift in padded]
    total = scaled.total(jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts))
    expected = sum(number * 2**shift for number, shift in terms)
    assert (
        Fraction(float(total.mantissa[0])) * Fraction(2) ** (int(total.exponent) - base if expected else 0) == expected
    )
