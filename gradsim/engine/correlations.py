"""Statistics of a pair: how alike the states and the gradients of two inputs are."""

from collections.abc import Callable
from typing import Any

from jax import Array

from gradsim.engine import cosine
from gradsim.engine.cosine import by_parameter
from gradsim.engine.products import Bundle
from gradsim.engine.statistic import Statistic, View


def _of_bundles(bundle: Bundle | None) -> Array:
    assert bundle is not None
    return cosine.of_bundles(bundle)


def of_pairs() -> tuple[Statistic, ...]:
    """Those that compare the two inputs of a pair."""
    one, back, of_weights = ("one",), ("backward",), {"directions": ("backward",), "by_parameter": True}
    rows: tuple[tuple[str, str, Callable[[View], Array], dict[str, Any]], ...] = (
        ("correlation", "cosine of the two states of a pair", lambda view: cosine.cosine(view.state.mantissa), {}),
        ("log_decorrelation", "log distance ln(1 − c) of the two states of a pair",
         lambda view: cosine.distance(view.state.mantissa), {"units": "nat", "logarithm": True}),
        ("gradient_correlation", "cosine of two inputs' Jacobians, tr JᵀJ'/(‖J‖‖J'‖)",
         lambda view: _of_bundles(view.product), {"needs": ("all",)}),
        ("jvp_correlation", "cosine of J u and J' u",
         lambda view: _of_bundles(view.vector), {"needs": one, "directions": ("forward",)}),
        ("loss_gradient_correlation", "cosine of two inputs' ∂loss/∂state",
         lambda view: _of_bundles(view.vector), {"needs": one, "directions": back}),
        ("weight_gradient_correlation", "cosine of two inputs' ∂loss/∂W at this step",
         lambda view: by_parameter(view.weight_gradients, view.network.parameters),
         {"needs": ("one", "weights"), **of_weights}),
        ("weight_gradient_sum_correlation", "cosine of two inputs' ∂loss/∂W summed over this step and all later ones",
         lambda view: by_parameter(view.weight_gradient_sums, view.network.parameters),
         {"needs": ("one", "weights", "weight_sums"), **of_weights}),
    )  # fmt: skip
    return tuple(
        Statistic(name, said, measure=measure, of_pair=True, **{"units": "1", **others})
        for name, said, measure, others in rows
    )
