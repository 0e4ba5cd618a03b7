"""Singular values of long products in arithmetic of many digits."""

import math

import mpmath  # type: ignore[import-untyped]
import numpy as np


def whole_numbers(factor: np.ndarray) -> tuple[np.ndarray, int]:
    """A matrix of floats as one of Python's integers times a power of two, exactly."""
    power = int(np.frexp(factor[factor != 0])[1].min(initial=0)) - 53
    rows = np.ldexp(factor, -power).tolist()
    return np.array([[int(number) for number in row] for row in rows], object), power


def exact(factors: np.ndarray, digits: int) -> np.ndarray:
    """ln σ of A_L … A_1, from the largest, in arithmetic of so many digits; −inf for zero."""
    product, power = whole_numbers(np.eye(factors.shape[-1]))
    for factor in factors:
        numbers, more = whole_numbers(factor)
        product = numbers @ product  # a third of the time that mpmath takes
        extra = max(max(abs(number).bit_length() for number in product.flat) - math.ceil(digits * math.log2(10)), 0)
        product, power = product >> extra, power + more + extra
    with mpmath.workdps(digits):
        whole = mpmath.matrix([[mpmath.ldexp(number, power) for number in row] for row in product.tolist()])
        values = [float(mpmath.log(value)) if value else -np.inf for value in mpmath.svd_r(whole, compute_uv=False)]
    return np.sort(values)[::-1]
