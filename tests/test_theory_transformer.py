"""The mean field of transformers: the law book's targets, recursions and integrals done by hand, refusals."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.polynomial.hermite_e import hermegauss
from unrolled import own_checks

from gradsim import theory
from gradsim.activations import ACTIVATIONS
from gradsim.theory import softmax
from gradsim.theory.channels import kernel

ROOT2 = math.sqrt(2)
UNIT: dict[str, Any] = {"sigma_w": ROOT2}  # s = 1
ALONE: dict[str, Any] = {"mlp": False, "sigma_q": 0.0}
TARGETS: list[tuple[str, dict[str, Any], str, float]] = [
    ("G8", {"tokens": 2, "depth": 4, "sigma_q": 0.0, **UNIT}, "power", 7.428238245298),
    ("G8", {"tokens": 2, "depth": 4, **UNIT}, "power", 9.735096109588),
    ("G8", {"tokens": 2, "depth": 4, "sigma_q": 0.0, "position": "post", **UNIT}, "power", 0.852145677894),
    ("G8", {"tokens": 2, "depth": 4, "position": "post", **UNIT}, "power", 1.137979659185),
    ("G8", {"tokens": 4, "depth": 6, "sigma_q": 0.0, **UNIT}, "power", 8.952444330737),
    ("G8", {"tokens": 4, "depth": 6, "sigma_q": 0.0, **UNIT}, "correlation", 0.687622369447),
    ("G8", {"tokens": 4, "depth": 6, "sigma_q": 0.0, "position": "post", **UNIT}, "power", 0.594268477535),
    ("G7", {"tokens": 8, "depth": 4, **ALONE}, "power", 2.182345934432),
    ("G7", {"tokens": 8, "depth": 4, **ALONE}, "length", 2.182345934432),
    ("G7", {"tokens": 8, "depth": 4, **ALONE}, "correlation", 0.541777504555),
    ("G6", {"tokens": 4, "depth": 4, "c0": 0.5, "position": "post", **ALONE}, "correlation", 0.951807228916),
    ("G6", {"tokens": 4, "depth": 4, "c0": 0.5, "position": "post", **ALONE}, "power", 0.457831325301),
    ("G6", {"tokens": 8, "depth": 4, "position": "post", **ALONE}, "correlation", 15 / 23),
    ("G6", {"tokens": 8, "depth": 4, "position": "post", **ALONE}, "power", 1.0),
]


@pytest.mark.parametrize(("law", "options", "field", "target"), TARGETS)
def test_targets_of_the_law_book(law: str, options: dict[str, Any], field: str, target: float) -> None:
    assert getattr(theory.transformer(**options), field)[-1] == pytest.approx(target, abs=6e-13)


def test_law_G14_deepnorm_has_hardly_any_branch() -> None:
    """Ten digits in the book; attention alone c_L → s/(8√2 n √L)."""
    path = theory.transformer(4, 16, sigma_q=0.0, position="post", scaling="deepnorm", **UNIT)
    np.testing.assert_allclose((path.power[-1], path.correlation[-1]), (0.9999454567, 0.0125419595), atol=6e-11)
    alone = theory.transformer(4, 900, position="post", scaling="deepnorm", **ALONE).correlation[-1]
    assert alone == pytest.approx(1 / (8 * ROOT2 * 4 * 30), rel=3e-3)


def test_law_G5_the_mlp_alone() -> None:
    """Pre-norm P = q_L/q₀, and 1/q₀ with the final norm; weights' gradients 1/(q₀ + ls); peri-norm 1 + L/q₀."""
    q0, s, depth = 1.7, 0.8, 10
    gains: dict[str, Any] = {"attention": False, "q0": q0, "sigma_w": math.sqrt(2 * s)}
    path, final = (theory.transformer(3, depth, final_norm=final, **gains) for final in (False, True))
    lengths = q0 + s * np.arange(1, depth + 1)
    np.testing.assert_allclose(path.length, lengths, rtol=1e-14)
    np.testing.assert_allclose(path.power, lengths / q0, rtol=1e-14)
    np.testing.assert_allclose(final.power, 1 / q0, rtol=1e-14)
    np.testing.assert_allclose(np.exp(2 * final.log_gradient[1:]), 1 / lengths[:-1], rtol=1e-13)
    peri = theory.transformer(3, 12, position="peri", **{**gains, "sigma_w": 0.3})
    np.testing.assert_allclose(peri.power, 1 + np.arange(1, 13) / q0, rtol=1e-14)


def test_law_G15_a_weighted_skip_beside_an_mlp() -> None:
    """Before its length is stationary too: q' = μ²q + s and P' = (μ² + s/q) P with a ReLU; and with attention."""
    mu, s, depth = 0.6, 0.8, 40
    options: dict[str, Any] = {"attention": False, "scaling": "weighted_skip", "skip_gain": mu}
    path = theory.transformer(1, depth, sigma_w=math.sqrt(2 * s), **options)
    q, power = 1.0, 1.0
    for block in range(depth):
        q, power = mu**2 * q + s, power * (mu**2 + s / q)
        assert (path.length[block], path.power[block]) == pytest.approx((q, power), rel=1e-13)
    tanh = theory.transformer(1, 80, "tanh", **options)
    growth = 2 * np.diff(tanh.log_gain[-2:])
    np.testing.assert_allclose(np.exp(growth), theory.weighted_skip_growth("tanh", mu), rtol=1e-12)
    whole, other = (theory.transformer(3, 4, scaling=one) for one in ("weighted_skip", "constant"))
    np.testing.assert_array_equal(whole.power, other.power)


def test_law_G3_scalings_of_the_branch() -> None:
    """Π (1 + s a_l²) without a norm."""
    number = np.arange(1, 101)
    scales = {
        "inverse_sqrt_depth": np.full(100, 0.01), "inverse_depth": np.full(100, 1e-4),
        "inverse_sqrt_index": 1 / number, "inverse_index": 1 / number**2,
    }  # fmt: skip
    for scaling, squares in scales.items():
        path = theory.transformer(1, 100, attention=False, position="none", scaling=scaling, **UNIT)
        np.testing.assert_allclose(path.power, np.cumprod(1 + squares), rtol=1e-13)


@pytest.mark.parametrize("position", ["pre", "post"])
def test_law_G8_as_the_book_writes_it(position: str) -> None:
    """The recursion in q, k, P, R with moments of two tokens by Gauss-Hermite, at other gains than the targets'."""
    q, c, tau2, sigma_a, s, depth = 1.0, 0.2, 0.6, 0.7, 0.45, 5
    k, power, other, found = q * c, 1.0, 0.0, []
    for _ in range(depth):
        for attention in (True, False):
            c, v = k / q, q if position == "pre" else 1.0
            p, r = power / v, other / v
            if attention:
                t = tau2 * (1 - c)
                s2, a, overlap, u = two_tokens(t, c)
                q, k = q + sigma_a * (c + (1 - c) * s2), k + sigma_a * (c + (1 - c) * overlap)
                power += sigma_a * (s2 * p + (1 - s2) * r + t * a * ((1 - c) * p + p - r))
                other += sigma_a * (overlap * p + (1 - overlap) * r + t * u * ((1 - c) * r + c * (p - r)))
            else:
                theta = math.acos(c)
                q, k = q + s, k + s * (math.sin(theta) + (math.pi - theta) * c) / math.pi
                power, other = power + s * p, other + s * r * (math.pi - theta) / math.pi
            if position == "post":
                k, power, other, q = k / q, power / q, other / q, 1.0
        found.append((q, k / q, power))
    path = theory.transformer(
        2, depth, position=position, c0=0.2, sigma_q=tau2**0.25, sigma_v=math.sqrt(sigma_a), sigma_w=math.sqrt(2 * s)
    )
    np.testing.assert_allclose(np.transpose(path[:3]), found, rtol=1e-11)


def two_tokens(t: float, c: float) -> tuple[float, float, float, float]:
    """S₂, A, T, U of two tokens, whose logits differ by √(2t) times a normal number."""
    z, weights = hermegauss(100)
    weights = weights / weights.sum()
    x = z[:, None]
    y = c * x + math.sqrt(1 - c**2) * z
    p, q = (1 / (1 + np.exp(-math.sqrt(2 * t) * one)) for one in (x, y))
    w, both = (p * (1 - p))[:, 0], p * q + (1 - p) * (1 - q)
    u = p * q * (1 - p - q + both) + (1 - p) * (1 - q) * (p + q - 1 + both)
    return 1 - 2 * weights @ w, 4 * weights @ w**2, weights @ both @ weights, weights @ u @ weights


@pytest.mark.parametrize(("t", "c"), [(0.5, 0.6), (0.01, 0.999), (1.2, -0.5), (1e-6, 0.3), (1.0, 1.0)])
def test_softmax_of_two_tokens(t: float, c: float) -> None:
    np.testing.assert_allclose(theory.softmax_moments(2, t, c), two_tokens(t, c), rtol=2e-12)


def test_softmax_of_three_tokens() -> None:
    """Four dimensions of Gauss-Hermite, as a constant in all logits does nothing."""
    t, c = 0.15, 0.55
    z, weights = hermegauss(18)
    grid = np.stack(np.meshgrid(z, z, z, z, indexing="ij"), axis=-1).reshape(-1, 4)
    weights = np.prod(np.stack(np.meshgrid(*[weights / weights.sum()] * 4, indexing="ij"), axis=-1), axis=-1).ravel()
    plane = np.array([[1, -1, 0] / np.sqrt(2), [1, 1, -2] / np.sqrt(6)])
    first, second = grid[:, :2], c * grid[:, :2] + math.sqrt(1 - c**2) * grid[:, 2:]
    p, q = (np.exp(math.sqrt(t) * one @ plane) for one in (first, second))
    p, q = p / p.sum(axis=1, keepdims=True), q / q.sum(axis=1, keepdims=True)
    s2, both = (p**2).sum(axis=1, keepdims=True), (p * q).sum(axis=1, keepdims=True)
    moments = [p**2, p**2 * (1 - 2 * p + s2), p * q, p * q * (1 - p - q + both)]
    expected = [weights @ one.sum(axis=1) for one in moments]
    np.testing.assert_allclose(theory.softmax_moments(3, t, c), expected, rtol=1e-9)


def test_law_G10_softmax_attention_without_a_skip() -> None:
    for tau, square, power in ((0.5, 0.550753264013, 0.653478298094), (1.0, 0.636838153968, 0.933051050654)):
        path = theory.transformer(2, 1, mlp=False, skip=False, position="none", sigma_q=math.sqrt(tau))
        np.testing.assert_allclose((path.length[0], path.power[0]), (square, power), atol=6e-13)
    tau2 = np.array([0.25, 1.0])
    many = theory.softmax_moments(10**6, tau2)
    np.testing.assert_allclose(many.square, np.exp(tau2) / 10**6, rtol=1e-4)
    np.testing.assert_allclose(many.slope, many.square, rtol=1e-4)


def test_rows_that_share_most_of_their_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ways to the same numbers: nodes of what is shared, and Hermite coefficients."""
    shared = theory.softmax_moments(4, 16.0, 0.95)
    monkeypatch.setattr(softmax, "_shared", lambda u, t, c: softmax._mehler(u, t, c, softmax._orders(t, c)))
    np.testing.assert_allclose(theory.softmax_moments(4, 16.0, 0.95), shared, rtol=1e-12)
    assert not np.array_equal(theory.softmax_moments(4, 16.0, 0.95), shared)


def test_limits_of_the_softmax() -> None:
    uniform, alone = theory.softmax_moments(5, [0.0, 1e-12], 0.4), theory.softmax_moments(1, 3.0)
    for one in uniform:
        np.testing.assert_allclose(one[1], one[0], rtol=1e-11)
    np.testing.assert_array_equal(alone, (1.0, 0.0, 1.0, 0.0))
    same, hard = theory.softmax_moments(4, 1.5, 1.0), theory.softmax_moments(4, 100.0, 0.0)
    np.testing.assert_allclose((same.overlap, same.slope_overlap), (same.square, same.slope), rtol=1e-13)
    assert 0.8 < hard.square < 1  # one token takes all
    np.testing.assert_allclose(hard.overlap, 0.25, rtol=1e-9)  # and rows choose independently


def test_law_G12_gated_mlps() -> None:
    """ReGLU from q₀ = s: P = (L + 1)(L + 2)/2; the power of SiLU's gate, 1 + r D(r)/V(r)."""
    depth = 6
    path = theory.transformer(2, depth, attention=False, gated=True, sigma_w=ROOT2)
    number = np.arange(1, depth + 1)
    np.testing.assert_allclose(path.power, (number + 1) * (number + 2) / 2, rtol=1e-13)
    silu = theory.transformer(2, 1, "silu", attention=False, gated=True)
    assert (silu.power[0] - 1) / (silu.length[0] - 1) == pytest.approx(2.066634241242, abs=1e-12)


def test_covariances_of_smooth_activations_by_gauss_hermite() -> None:
    z, weights = hermegauss(80)
    weights, x, r, c = weights / weights.sum(), z[:, None], 1.3, 0.7
    pair = [math.sqrt(r) * one for one in (x, c * x + math.sqrt(1 - c**2) * z)]
    found = kernel(ACTIVATIONS["silu"], np.array([r]))
    values = [one / (1 + np.exp(-one)) for one in pair]
    slopes = [(1 + one * (1 - 1 / (1 + np.exp(-one)))) / (1 + np.exp(-one)) for one in pair]
    np.testing.assert_allclose(found.square - found.gap(np.array([0.3])), weights @ (values[0] * values[1]) @ weights)
    np.testing.assert_allclose(found.slope(np.array([0.3])), r * (weights @ (slopes[0] * slopes[1]) @ weights))


def test_qk_norm_takes_the_gain_of_queries_away() -> None:
    plain, normed = (
        theory.transformer(3, 3, sigma_q=gain, logit_gain=1.5, qk_norm=True, position=position)
        for gain, position in ((1.0, "pre"), (7.0, "pre"))
    )
    np.testing.assert_array_equal(plain.power, normed.power)
    np.testing.assert_allclose(plain.power, theory.transformer(3, 3, sigma_q=math.sqrt(1.5)).power, rtol=1e-14)


def test_the_way_back_ends_where_the_way_forth_does() -> None:
    path = theory.transformer(5, 7, sigma_q=[0.0, 1.0], c0=0.3, position="peri", activation="gelu")
    assert path.log_gain.shape == (2, 7)
    np.testing.assert_allclose(path.log_gradient[:, 0], path.log_gain[:, -1], rtol=1e-13)
    np.testing.assert_allclose(np.exp(2 * path.log_gain), path.power, rtol=1e-13)


def test_it_holds_where_floats_end_and_says_where_it_does_not() -> None:
    deep = theory.transformer(1, 300, attention=False, sigma_w=[1e3, 1e-3], branch_gain=1e50)
    np.testing.assert_allclose(deep.log_gain, np.log(deep.length) / 2, rtol=1e-13)
    left = theory.transformer(1, 500, attention=False, position="none", sigma_w=3.0)
    np.testing.assert_allclose(left.log_gain[:400], np.arange(1, 401) * math.log(5.5) / 2, rtol=1e-13)
    assert np.isnan(left.power[-1])
    free = theory.transformer(2, 30, position="none")
    assert np.isfinite(free.power[3])
    assert np.isnan(free.power[-1])  # logits beyond the range of the theory


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"tokens": 0}, ValueError, "tokens: got 0"),
        ({"depth": 1.5}, ValueError, r"depth: got 1\.5"),
        ({"position": "sandwich"}, ValueError, "position: got 'sandwich'; pass one of: pre, post, peri, none"),
        ({"scaling": "fixup"}, ValueError, "scaling: got 'fixup'; pass one of: constant"),
        ({"scaling": "deepnorm"}, ValueError, "position: got 'pre' with scaling='deepnorm'"),
        ({"skip": False, "scaling": "inverse_depth"}, ValueError, "scaling: got 'inverse_depth'; pass one of: const"),
        ({"attention": False, "mlp": False}, ValueError, "attention: got False with mlp=False"),
        ({"skip_gain": 0.5}, ValueError, "skip_gain: got 0.5 with scaling='constant'; leave it out, or pass 'weigh"),
        ({"attention": 1}, TypeError, "attention: got 1 of type int; pass True or False"),
        ({"activation": "hard_tanh"}, ValueError, "activation: got hard_tanh, which has kinks"),
        ({"activation": "gelu", "position": "none"}, ValueError, "activation: got gelu where no norm comes before"),
        ({"gated": True, "position": "none"}, ValueError, "activation: got gated relu where no norm"),
        ({"c0": -0.6}, ValueError, r"c0: got -0\.6; pass a number from -0\.5 to 1"),
        ({"q0": 0.0}, ValueError, "q0: got 0"),
        ({"sigma_q": "one"}, TypeError, "sigma_q"),
    ],
)
def test_bad_input_is_named(arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    with own_checks(), pytest.raises(error, match=words):
        theory.transformer(**{"tokens": 3, "depth": 2, **arguments})


def test_bad_moments_are_named() -> None:
    with own_checks(), pytest.raises(ValueError, match="variance: got 401"):
        theory.softmax_moments(2, 401.0)
    with own_checks(), pytest.raises(ValueError, match="correlation: got 2"):
        theory.softmax_moments(2, 1.0, 2.0)
