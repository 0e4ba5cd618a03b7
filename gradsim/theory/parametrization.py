"""What training changes, by width and by depth: the powers of three parametrizations, and residual branches."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradsim import arguments

PARAMETRIZATIONS = ("standard", "mean-field", "maximal update")


def width_powers(parametrization: str, layers: int) -> dict[str, float]:
    """The powers of the width n with which root mean squares go under gradient descent, in x V -> L layers -> h U.

    The layers are h' = φ(h W), [n, n]; V reads data of a fixed size, U has a fixed number of outputs. With W = W'/n and
    the like, each parametrization is one of gains and rates (Yang & Hu 2021, table 1):

                         variance of W, U    rates of V, W, U
        standard         1/n,   1/n          η,   η, η
        mean-field       1/n²,  1/n²         η n, η, η/n
        maximal update   1/n,   1/n²         η n, η, η/n

    The sum of n products is √n of one where they are independent, and n of one where they are aligned. The gradient of
    the last layer is δ = U χ, its entries of the size u of U's, and goes back unchanged where n var W = 1. A step adds
    −η hᵀδ to W, hence −η |h|² δ to the next layer, n u; through U, with which it is aligned, n u² n to the output.

        standard         h ~ 1, u = n^−1/2: Δh ~ n^1/2, Δy ~ n; ‖ΔW‖/‖W‖ ~ 1
        maximal update   h ~ 1, u = 1/n: Δh ~ 1, Δy ~ 1; ‖ΔW‖/‖W‖ ~ n^−1/2, for ΔW has the rank of the batch
        mean-field       each layer is n^−1/2 of the one before, forwards and backwards: h_L ~ n^(−L/2), so that
                         Δh_L ~ n |h_{L−1}|²/n u ~ n^(1−L) and Δy ~ n^(1−L); ‖ΔW‖/‖W‖ ~ n^((1−L)/2)

    So the last halts where L > 1. All hold without biases, while changes are small, of a homogeneous φ (ReLU). The
    output's own size is that at the start: n^0, n^−1/2 under maximal update, n^(−(L+1)/2) under mean-field.

    Returns: the power of `activation` (the last layer), `activation_change`, `output`, `output_change` and `update`.
    Raises: ValueError or TypeError for another name, or layers that are no positive whole number.
    Source: Yang & Hu 2021, arXiv:2011.14522; Hajjar, Chizat & Giraud 2021 for deep mean-field networks.

    >>> width_powers("maximal update", 3)["output_change"]
    0.0
    """
    arguments.choice("parametrization", parametrization, PARAMETRIZATIONS)
    depth = arguments.size("layers", layers)
    every: dict[str, tuple[float, ...]] = {
        "standard": (0.0, 0.5, 0.0, 1.0, 0.0),
        "mean-field": (-depth / 2, 1.0 - depth, -(depth + 1) / 2, 1.0 - depth, (1 - depth) / 2),
        "maximal update": (0.0, 0.0, -0.5, 0.0, -0.5),
    }
    names = ("activation", "activation_change", "output", "output_change", "update")
    return dict(zip(names, every[parametrization], strict=True))


def residual_sizes(depth: Any, scale: Any) -> dict[str, Any]:
    """How the sizes of `width_powers` go with depth and branch scale s in x + s φ(norm x) W, up to constants.

    For ReLU, σ_w² = 2 and a start of mean square 1, at infinite width, in the first steps; V is held, and U small, so
    that the output changes by U's own change. A block adds s² to the mean square: q = 1 + s² l. Its Jacobian is
    1 + a G, a² = s²/q, and a step changes x by K δ, K = Σ_l s² J Jᵀ with J from block l to the end, or block by block
    K ← (1 + aG) K (1 + aG)ᵀ + s². With k₁, k₂ the normalized traces of K and K², and G free of K,

        k₁ ← k₁ (1 + a²) + s²
        k₂ ← k₂ (1 + a²)² + k₁² (2a² + 2a⁴) + 2 s² k₁ (1 + a²) + s⁴

    of the sample that is trained (another, in which other units are active, has a K of slightly smaller powers): so
    that x ~ √q, Δx ~ √k₂ (q times powers of ln q at s = 1, level at 1/√L, 1/L at 1/L), Δy ~ |x|² ~ q, and the
    last block's update goes as s.

    Args:
        depth: numbers of blocks, and `scale` the s of each.
    Source: Yang & Schoenholz 2017 for q; De & Smith 2020 for the scalings; free probability for k₂.

    >>> print(residual_sizes([8], [1.0])["activation"])
    [3.]
    """
    found = [_residual(int(blocks), float(s)) for blocks, s in zip(depth, scale, strict=True)]
    q, k2 = (np.array(column) for column in zip(*found, strict=True))
    root = np.sqrt(q)
    return {
        "activation": root, "activation_change": np.sqrt(k2), "output": root, "output_change": q,
        "update": np.asarray(scale, float),
    }  # fmt: skip


def _residual(blocks: int, s: float) -> tuple[float, float]:
    """q and k₂ after so many blocks."""
    q, k1, k2 = 1.0, 0.0, 0.0
    for _ in range(blocks):
        a = s * s / q
        k2 = k2 * (1 + a) ** 2 + k1 * k1 * (2 * a + 2 * a * a) + 2 * s * s * k1 * (1 + a) + s**4
        k1, q = k1 * (1 + a) + s * s, q + s * s
    return q, k2
