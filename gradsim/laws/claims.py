"""Popular claims that are wrong or loose: what holds in their place, and which measured number of a law shows it."""

from typing import NamedTuple


class Claim(NamedTuple):
    """What is said; the check of a law that says otherwise."""

    claim: str
    holds: str
    law: str
    quantity: str
    """Of that law's checks."""
    claimed: str
    """What the quantity would be."""


CLAIMS = (
    Claim(
        "Post-norm gradients vanish exponentially", "ReLU MLPs are neutral, uniform attention saturates at 1/(nρ₀)",
        "G6", "E‖J‖²/(n d), n = 4, c₀ = 0.5, L = 8", "about 0",
    ),
    Claim(
        "Pre-norm gradients are equal across layers", "They fall as 1/(q₀ + ls)", "G5",
        "E‖∂loss/∂U_1‖² over that of block 10", "1",
    ),
    Claim(
        "Rank collapses doubly exponentially", "With a skip as (1 + σ_a)^−L post-norm and 1/L pre-norm", "G7",
        "correlation of tokens, n = 8, c₀ = 0, L = 8", "1",
    ),
    Claim(
        "Attention is uniform at initialization", "Only for τ → 0; at τ = 1 much of J runs through the softmax", "G10",
        "E‖J‖²/(n d), τ = 1, n = 2", "0.5",
    ),
    Claim(
        "Gradients of plain networks shatter as 2^−L", "He ReLU as L^−3, smooth φ on its edge as L^−2", "H1",
        "g, L = 10, N → ∞", "0.001",
    ),
    Claim(
        "Gradients of residual networks shatter as L^−½", "With ReLU as L^−3, with or without a skip", "H2",
        "g, s = 1, L = 10, N → ∞", "0.32",
    ),
    Claim(
        "Antisymmetric RNNs are stable", "Their Euler step grows, tied weights unless γ ≥ 4εσ_w²", "I8",
        "antisymmetric_rnn: E‖Ju‖², T = 40", "at most 1",
    ),
    Claim("minGRU remembers", "It forgets e-fold in 1.2 steps at b = 0", "I3", "min_gru: E ln g", "about 0"),
    Claim("minLSTM remembers", "It forgets e-fold in 1.3 steps at b = 0", "I3", "min_lstm: E ln g", "about 0"),
)  # fmt: skip
