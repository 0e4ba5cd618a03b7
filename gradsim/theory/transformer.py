"""Transformers at infinite width, block by block: length and correlation of tokens, and the power of the Jacobian."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from gradsim import activations, arguments
from gradsim.activations import Activation
from gradsim.networks.depth.scaling import FACTORS, SCHEMES, deepnorm
from gradsim.networks.depth.transformer import POSITIONS
from gradsim.theory.channels import kernel
from gradsim.theory.given import RANGE, ActivationLike, Number, layers
from gradsim.theory.softmax import LARGEST_TOKENS, LARGEST_VARIANCE, softmax_moments

SCALINGS = (*FACTORS, "deepnorm", "weighted_skip")

Cells = Float[np.ndarray, " cells"]
Path = Float[np.ndarray, "depth cells"]
Steps = Float[np.ndarray, "depth 2 2 cells"]


class TransformerPath(NamedTuple):
    """What a stack of blocks passes through; the last axis is the block, 1 to depth."""

    length: Float[np.ndarray, "*shape depth"]
    """q = E x², of a token."""
    correlation: Float[np.ndarray, "*shape depth"]
    """c of two tokens."""
    power: Float[np.ndarray, "*shape depth"]
    """P = E‖J‖_F²/(n d) of J = ∂X_l/∂X_0, all n tokens together."""
    log_gain: Float[np.ndarray, "*shape depth"]
    """½ ln P, in nats: of a sweep the `log_gain` whose squares are averaged."""
    log_gradient: Float[np.ndarray, "*shape depth"]
    """The same of ∂X_L/∂X_{l−1}, what a gradient meets on its way back through the last blocks down to block l."""


class _Branch(NamedTuple):
    """A sublayer's branch, for normalized tokens."""

    length: Cells
    gap: Cells
    """Of its length over the covariance of two tokens."""
    power: Float[np.ndarray, "2 2 cells"]
    """From P and R to those of the branch."""


class _State(NamedTuple):
    length: Cells
    gap: Cells
    """q (1 − c), which does not cancel where tokens have become alike."""


_Sublayer = Callable[[_State], _Branch]


def transformer(
    tokens: int,
    depth: int,
    activation: ActivationLike = "relu",
    *,
    attention: bool = True,
    mlp: bool = True,
    gated: bool = False,
    position: str = "pre",
    qk_norm: bool = False,
    skip: bool = True,
    scaling: str = "constant",
    final_norm: bool = False,
    q0: Number = 1.0,
    c0: Number = 0.0,
    sigma_q: Number = 1.0,
    logit_gain: Number = 1.0,
    sigma_v: Number = 1.0,
    sigma_o: Number = 1.0,
    sigma_w: Number = 1.0,
    sigma_u: Number = 1.0,
    sigma_g: Number = 1.0,
    branch_gain: Number = 1.0,
    skip_gain: Number = 1.0,
) -> TransformerPath:
    """Length, correlation and power after each block of `gradsim.transformer`, for large width.

    The n tokens begin with variance q0 and correlation c0. With q, k = qc and P, R the same of rows of J, within a
    token and between two, and v = q, p = P/v, r = R/v where a norm comes first (v = 1 after a norm), a sublayer adds,
    times a² and the scaling's square,

        attention  σ_a [c + (1 − c) S₂] to q,  σ_a {S₂ p + (1 − S₂) r + t A [(2 − c) p − r]} to P,
                   σ_a [c + (1 − c) T] to k,   σ_a {T p + (1 − T) r + t U [(1 − c) r + c (p − r)]} to R
        MLP        σ_u² C(1) to q,  σ_u² C(c) to k,  σ_u² C'(1) p to P,  σ_u² C'(c) r to R,   C(c) = E φ(z)φ(z')
        gated      σ_u²σ_w² c C(c) to k, and σ_u²σ_w² (C + c C')(c) in place of σ_u² C'(c)

    with σ_a = σ_v²σ_o², the variance τ² = σ_q⁴ of a logit (`logit_gain`² with `qk_norm`), t = τ² (1 − c), S₂, A, T, U
    of `softmax_moments`, and z of variance σ_w² (σ_g² of the gate). position="post" divides all by q after each
    sublayer, "peri" each branch by its own length; with "none" the branch goes with q, and t = τ² q² (1 − c) unless
    `qk_norm`.

    Exact for large width, many heads of large size, and Gaussian weights without bias; not for causal attention, whose
    tokens differ. At τ = 0 any number of heads will do.

    Args:
        tokens, depth: n and L.
        attention, mlp: False leaves that sublayer out.
        scaling: as of `gradsim.transformer`, with L = depth: constant, inverse_sqrt_depth, inverse_depth,
            inverse_sqrt_index, inverse_index, deepnorm or weighted_skip: μ² times what was there, with the skip_gain μ,
            to which a sublayer adds. A start, as GPT-2's, is a choice of gains.
        final_norm: of what the network would give out if it ended after block l, normalized once more.

    Returns: TransformerPath(length, correlation, power, log_gain, log_gradient), float64 [*shape, depth] for the gains,
        q0 and c0 broadcast to `shape`. Without a norm NaN from where the logits' variance passes 400, or
        a length the floats.
    Raises: TypeError or ValueError naming the argument: an activation with kinks other than the ReLU, one that is not
        homogeneous (or gated) with position="none", c0 below −1/(n − 1).
    Source: Cowsik et al. 2024, arXiv:2403.02579; laws G4 to G8, G14 and G15 of the project's law book.

    >>> print(f"{transformer(4, 6, sigma_q=0.0, sigma_w=2**0.5).power[-1]:.9f}")
    8.952444331
    """
    n = arguments.whole("tokens", tokens, maximum=LARGEST_TOKENS)
    position = arguments.choice("position", position, POSITIONS)
    skip = arguments.flag("skip", skip)
    scaling = arguments.choice("scaling", scaling, SCALINGS if skip else ("constant",))
    parts = arguments.flag("attention", attention), arguments.flag("mlp", mlp)
    phi, gated = activations.get(activation), arguments.flag("gated", gated)
    qk_norm, final_norm = arguments.flag("qk_norm", qk_norm), arguments.flag("final_norm", final_norm)
    _check(parts, position, scaling)
    lowest = -1 / (n - 1) if n > 1 else 0.0
    depth, (q, c, *gains), shape = layers(
        depth, {"q0": (1e-150, RANGE[1]), "c0": (lowest, 1.0)}, q0=q0, c0=c0, sigma_q=sigma_q, logit_gain=logit_gain,
        sigma_v=sigma_v, sigma_o=sigma_o, sigma_w=sigma_w, sigma_u=sigma_u, sigma_g=sigma_g, branch_gain=branch_gain,
        skip_gain=skip_gain,
    )  # fmt: skip
    query, logit, value, out, first, second, gate, branch, mu = gains
    if scaling != "weighted_skip" and np.any(mu != 1):
        raise ValueError(
            f"skip_gain: got {mu[mu != 1][0]:g} with scaling={scaling!r}; leave it out, or pass 'weighted_skip'"
        )
    alpha, beta = deepnorm(depth) if scaling == "deepnorm" else (1.0 if skip else 0.0, 1.0)
    sublayers: list[_Sublayer] = []
    if parts[0]:
        grows = position in ("none", "post") and not qk_norm  # logits go with the square of the tokens, as they come
        sublayers.append(_attention(n, logit**2 if qk_norm else query**4, (value * out * beta**2) ** 2, grows))
    if parts[1]:
        _check_unnormalized(phi, gated, position, bool(parts[0] or np.all(q == 1)))
        sublayers.append(_channels(phi, first * beta, second * beta, gate if gated else None))
    scheme = SCHEMES[scaling]
    a2 = [branch**2 * (depth if scheme.of == "depth" else block) ** (2 * scheme.power) for block in range(1, depth + 1)]
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        length, gap, steps = _followed(_State(q, q * (1 - c)), sublayers, a2, (alpha * mu) ** 2, position)
        last = -np.log(length) if final_norm else np.zeros_like(length)  # what the final norm divides by
        forward, backward = (_powers(steps) + last) / 2, (_powers(steps[::-1].swapaxes(1, 2))[::-1] + last[-1]) / 2
        power = np.exp(2 * forward)
    fields = (np.ones_like(length) if final_norm else length, 1 - gap / length, power, forward, backward)
    return TransformerPath(*(np.moveaxis(field, 0, -1).reshape(*shape, depth) for field in fields))


def _check(parts: tuple[bool, bool], position: str, scaling: str) -> None:
    if not any(parts):
        raise ValueError("attention: got False with mlp=False; leave one of them in")
    if scaling == "deepnorm" and position != "post":
        raise ValueError(f"position: got {position!r} with scaling='deepnorm'; pass 'post', or another scaling")


def _check_unnormalized(phi: Activation, gated: bool, position: str, normalized: bool) -> None:
    """Where no norm comes before the MLP, only a homogeneous one is the same at every length."""
    if (position == "none" or (position == "post" and not normalized)) and (
        gated or phi.name not in ("relu", "identity")
    ):
        what = f"{'gated ' if gated else ''}{phi.name}"
        raise ValueError(
            f"activation: got {what} where no norm comes before it; pass 'relu' or 'identity', not gated"
            + (", or q0=1" if position == "post" else "")
        )


def _attention(n: int, variance: Cells, size: Cells, grows: bool) -> _Sublayer:
    """Of logits of this variance at unit length, and the size σ_a."""

    def branch(state: _State) -> _Branch:
        epsilon = state.gap / state.length
        c = 1 - epsilon
        t = variance * epsilon * (np.where(variance > 0, state.length, 1.0) ** 2 if grows else 1.0)
        held = t <= LARGEST_VARIANCE
        found = softmax_moments(n, np.where(held, t, 0.0), np.where(held, np.clip(c, -1.0, 1.0), 0.0))
        s2, slope, overlap, both = (np.where(held, one, np.nan) for one in found)
        power = [
            [s2 + t * slope * (1 + epsilon), 1 - s2 - t * slope],
            [overlap + t * both * c, 1 - overlap + t * both * (epsilon - c)],
        ]
        return _Branch(size * (c + epsilon * s2), size * epsilon * (s2 - overlap), size * np.array(power))

    return branch


def _channels(phi: Activation, first: Cells, second: Cells, gate: Cells | None) -> _Sublayer:
    """An MLP, or with the gain of a gate a gated one."""
    one = kernel(phi, (first if gate is None else gate) ** 2)
    size = second**2 if gate is None else (first * second) ** 2

    def branch(state: _State) -> _Branch:
        epsilon = state.gap / state.length
        gap, zero = one.gap(epsilon), np.zeros_like(epsilon)
        within, between = one.slope(zero), one.slope(epsilon)
        if gate is not None:
            covariance = one.square - gap
            gap, between = gap + epsilon * covariance, covariance + (1 - epsilon) * between
            within = one.square + within
        return _Branch(size * one.square, size * gap, size * np.array([[within, zero], [zero, between]]))

    return branch


def _around(
    state: _State, branch: _Branch, a2: Cells, alpha2: Cells, position: str
) -> tuple[_State, Float[np.ndarray, "2 2 cells"]]:
    """The state after a sublayer, and its matrix on (P, R)."""
    q, gap = state
    share = q if position in ("none", "post") else 1.0 if position == "pre" else 1 / branch.length
    # A branch that is zero stays so: no norm makes anything of it.
    share = np.where((a2 > 0) & (branch.length != 0), a2 * share, 0.0)
    matrix = alpha2 * np.eye(2)[:, :, None] + share / q * branch.power
    q, gap = alpha2 * q + share * branch.length, alpha2 * gap + share * branch.gap
    if position == "post":
        q, gap, matrix = np.ones_like(q), gap / q, matrix / q
    return _State(q, gap), matrix


def _followed(
    state: _State, sublayers: Sequence[_Sublayer], a2: Sequence[Cells], alpha2: Cells, position: str
) -> tuple[Path, Path, Steps]:
    """Length and gap after each block, and its matrix on (P, R)."""
    path, steps = np.empty((2, len(a2), state.length.size)), np.empty((len(a2), 2, 2, state.length.size))
    for block, scale in enumerate(a2):
        step = np.broadcast_to(np.eye(2)[:, :, None], steps.shape[1:])
        for sublayer in sublayers:
            state, matrix = _around(state, sublayer(state), scale, alpha2, position)
            step = np.einsum("ijc,jkc->ikc", matrix, step)
        steps[block], path[:, block] = step, (state.length, state.gap)
    return path[0], path[1], steps


def _powers(steps: Steps) -> Path:
    """ln of the first entry of M_l … M_1 (1, 0), which may leave the floats."""
    vector = np.zeros((2, steps.shape[-1]))
    vector[0] = 1.0
    scale, found = np.zeros(steps.shape[-1]), np.empty((steps.shape[0], steps.shape[-1]))
    for block, step in enumerate(steps):
        vector = np.einsum("ijc,jc->ic", step, vector)
        largest = np.abs(vector).max(axis=0)
        scale, vector = scale + np.log(largest), vector / largest
        found[block] = scale + np.log(vector[0])
    return found
