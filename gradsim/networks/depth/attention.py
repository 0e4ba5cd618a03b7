"""Transformer blocks with layer norm and a plain MLP, and attention alone: a shorter way to write them."""

from dataclasses import dataclass, fields
from typing import ClassVar

from gradsim import activations, arguments, initializers
from gradsim.activations import Activation
from gradsim.initializers import Initializer
from gradsim.networks.depth.transformer import Transformer, transformer

NORMS = ("pre", "post", "none")
SCALINGS = ("constant", "inverse_sqrt_depth", "inverse_depth", "deepnorm")


@dataclass(frozen=True)
class Attention(Transformer):
    """See `attention`."""

    family: ClassVar[str] = "attention"


def attention(
    width: int,
    heads: int = 1,
    tokens: int = 8,
    mlp: float | int = 4,
    activation: str | activations.Function | Activation = "gelu",
    initializer: str | initializers.Draw | Initializer = "gaussian",
    norm: str = "pre",
    skip: bool = True,
    causal: bool = False,
    epsilon: float = 1e-6,
    scaling: str = "constant",
    layers: int | None = None,
    tied: bool = False,
) -> Attention:
    """`transformer` with layer norm, at the position `norm`, and a plain MLP; mlp=0 is attention alone.

        norm="pre"  X + a s f(LN X)     norm="post"  LN(X + a s f(X))     norm="none"  X + a s f(X)

    with s = 1, 1/√L or 1/L by `scaling`, or scaling="deepnorm" (norm="post"). All else is as in `transformer`.

    Raises: ValueError or TypeError as `transformer` does, and for no heads.
    Source: Vaswani et al. 2017; Xiong et al. 2020; Wang et al. 2022 (DeepNorm).
    """
    norm = arguments.choice("norm", norm, NORMS)
    skip = arguments.flag("skip", skip)
    scaling = arguments.choice("scaling", scaling, SCALINGS if skip else SCALINGS[:1])
    if scaling == "deepnorm" and norm != "post":
        raise ValueError(f"norm: got {norm!r} with scaling='deepnorm'; pass norm='post', or another scaling")
    same = transformer(
        width, arguments.size("heads", heads), tokens, mlp, activation, initializer, position=norm, skip=skip,
        causal=causal, epsilon=epsilon, scaling=scaling, layers=layers, tied=tied,
    )  # fmt: skip
    return Attention(**{field.name: getattr(same, field.name) for field in fields(same)})
