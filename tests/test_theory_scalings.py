"""Closed forms of residual blocks, of their scalings, of gated MLPs and of fixed attention."""

from typing import Any

import mpmath  # type: ignore[import-untyped]
import numpy as np
import pytest
from scipy import integrate, stats
from scipy.special import exp1
from unrolled import own_checks

from gradsim import theory


@pytest.mark.parametrize(
    ("width", "mean", "variance"), [(8, 0.296761403201, 0.054141061590), (64, 0.340670625767, 0.005960245332)]
)
def test_law_G1_targets(width: int, mean: float, variance: float) -> None:
    block = theory.residual_block(width, 1.0)
    np.testing.assert_allclose(block[:2], (mean, variance), atol=6e-13)
    assert block.fourth == pytest.approx(4 + 6 / width)


@pytest.mark.parametrize(("width", "share"), [(8, 0.03), (3, 1e-3), (8, 0.01), (1, 0.5)])
def test_law_G1_by_mpmath(width: int, share: float) -> None:
    """E ln and E ln² of a noncentral χ², its density integrated."""
    with mpmath.workdps(30):
        v = mpmath.mpf(share) / width
        half, root = mpmath.mpf(width) / 2, mpmath.sqrt(v)

        def density(r: Any) -> Any:
            bessel = mpmath.besseli(half - 1, r / v, maxterms=10**6) * mpmath.exp(-r / v)
            return r**half / v * bessel * mpmath.exp(-((r - 1) ** 2) / (2 * v))

        ends = [max(mpmath.mpf(0), 1 + k * root) for k in (-14, -7, -3, 0, 3, 7, 14)]
        nodes = sorted(set(ends))
        moments = [mpmath.quad(lambda r, k=k: density(r) * (2 * mpmath.log(r)) ** k, nodes) for k in (1, 2)]
    block = theory.residual_block(width, share)
    np.testing.assert_allclose(float(block.mean), float(moments[0]) / 2, rtol=1e-11, atol=1e-16)
    np.testing.assert_allclose(float(block.variance), float(moments[1] - moments[0] ** 2) / 4, rtol=1e-10)


def test_law_G2_is_the_limit_of_many_small_blocks() -> None:
    """The law book has 0.484147957 at n = 64, L = 1000, which is off by the rounding of its Poisson weights."""
    depth = 1000
    assert depth * theory.residual_block(64, 1 / depth).mean == pytest.approx(0.484148086305302, abs=1e-13)
    small = theory.residual_block(8, [1e-3, 1e-6, 1e-12])
    np.testing.assert_allclose(small.mean / [1e-3, 1e-6, 1e-12], 6 / 16, rtol=3e-4)
    np.testing.assert_allclose(small.variance / [1e-3, 1e-6, 1e-12], 1 / 8, rtol=3e-3)


def test_law_G3_a_relu_block() -> None:
    """Mean at n = 8 from the book; at n = 2 ln r² is harmonic, E ln‖u + √v g‖² = E₁(1/2v), and v = sχ²_B/2."""
    assert theory.residual_block(8, 1.0, "relu").mean == pytest.approx(0.2702921152, abs=6e-11)
    for s in (0.2, 5.0):
        block = theory.residual_block(2, s, "relu")
        assert block.mean == pytest.approx(two_units(s) / 2, rel=1e-8)
        assert block.fourth == pytest.approx(1 + 4 * s + 7 * s**2)


def two_units(s: float) -> float:
    total = 0.0
    for active, chance in ((1, 0.5), (2, 0.25)):
        law = stats.chi2(active)
        total += chance * integrate.quad(lambda x, law=law: law.pdf(x) * exp1(1 / (s * x)), 0, 60, points=[1.0])[0]
    return total


def test_law_G3_targets_of_the_stacks() -> None:
    def square(*arguments: Any) -> Any:
        return np.exp(2 * theory.residual_stack(1.0, *arguments))

    np.testing.assert_allclose(square(100, "inverse_sqrt_depth"), 2.704813829422, atol=6e-13)
    np.testing.assert_allclose(square(100, "inverse_depth"), 1.010049662093, atol=6e-13)
    np.testing.assert_allclose(square(1e15, "inverse_index"), 3.676077910375, atol=6e-13)
    np.testing.assert_allclose(square(100, "inverse_sqrt_index"), 101, rtol=1e-13)


@pytest.mark.parametrize("scaling", ["constant", "inverse_sqrt_index", "inverse_index"])
def test_stacks_are_their_products(scaling: str) -> None:
    power = {"constant": 0, "inverse_sqrt_index": 1, "inverse_index": 2}[scaling]
    depths, s = np.array([1, 7, 999, 1000, 3000]), np.array([[0.0], [0.3], [2.7], [5e4]])
    product = np.cumsum(np.log1p(s / np.arange(1.0, 3001) ** power), axis=1)[:, depths - 1]
    np.testing.assert_allclose(2 * theory.residual_stack(s, depths, scaling), product, rtol=1e-11, atol=1e-13)


def test_law_G9_fixed_attention() -> None:
    """The first of four tokens; and the square of (I + A)^L written out where d = 1 and all weights are known."""
    causal = np.tri(4) / np.arange(1, 5)[:, None]
    found = theory.fixed_attention(causal, 3)
    assert found.sum() / 4 == pytest.approx(5.154898686664, abs=6e-13)
    assert found[:, 0].sum() / found.sum() == pytest.approx(0.7176018008, abs=6e-11)
    uniform = theory.fixed_attention(np.full((6, 6), 1 / 6), 4)  # law A9
    assert uniform.sum() / 6 == pytest.approx(3.5, rel=1e-13)
    np.testing.assert_array_equal(theory.fixed_attention(causal, 5, 0.0), np.eye(4))
    deep = theory.fixed_attention(np.eye(2) * 1e-3, 1000, 2.0)
    np.testing.assert_allclose(deep, np.eye(2) * (1 + 2e-6) ** 1000, rtol=1e-12)


def test_law_G12_targets() -> None:
    silu, relu = theory.gated_mlp("silu", 1.0, 8), theory.gated_mlp("relu", [0.5, 1.0], 8)
    np.testing.assert_allclose(silu, (0.856802308972, 2.066634241242), atol=6e-13)
    np.testing.assert_allclose(relu, ([0.5625, 1.125], [2, 2]), rtol=1e-12)
    path = theory.transformer(1, 3, "silu", attention=False, gated=True, position="pre")
    added = np.diff(path.power, prepend=1.0) * np.concatenate([[1.0], path.length[:-1]])
    np.testing.assert_allclose(added, theory.gated_mlp("silu", 1.0).square * np.r_[1.0, path.power[:-1]], rtol=1e-12)


def test_law_G15_a_weighted_skip() -> None:
    assert theory.weighted_skip_growth("tanh", 0.5) == pytest.approx(1.133355424228, abs=6e-13)
    np.testing.assert_allclose(theory.weighted_skip_growth("relu", [0.0, 0.3, 1.0], [0.5, 2.0, 7.0]), 1, rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: theory.residual_block(0, 1.0), "width: got 0"),
        (lambda: theory.residual_block(4, -1.0), r"share: got -1\.0"),
        (lambda: theory.residual_block(4, 1.0, "tanh"), "activation: got 'tanh'; pass one of: identity, relu"),
        (lambda: theory.residual_stack(1.0, 0), "depth: got 0"),
        (lambda: theory.residual_stack(1.0, 3, "deepnorm"), "scaling: got 'deepnorm'; pass one of: constant"),
        (lambda: theory.gated_mlp("relo", 1.0), "relo"),
        (lambda: theory.gated_mlp("relu", -1.0), r"r: got -1\.0"),
        (lambda: theory.gated_mlp("relu", 1.0, 0), "width: got 0"),
        (lambda: theory.fixed_attention(np.ones((2, 3)), 2), "weights: got"),
        (lambda: theory.fixed_attention(np.ones((2, 2)), 0), "depth: got 0"),
        (lambda: theory.fixed_attention(np.ones((2, 2)), 1, -1.0), r"share: got -1\.0"),
        (lambda: theory.weighted_skip_growth("relu", 1.5), r"mu: got 1\.5; pass a number from 0 to 1"),
    ],
)
def test_bad_input_is_named(call: Any, words: str) -> None:
    with own_checks(), pytest.raises((ValueError, TypeError), match=words):
        call()
