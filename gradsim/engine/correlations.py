"""Statistics of a pair: how alike the states and the gradients of two inputs are."""

from jax import Array

from gradsim.engine import cosine
from gradsim.engine.cosine import by_parameter
from gradsim.engine.products import Bundle
from gradsim.engine.statistic import Statistic


def _of_bundles(bundle: Bundle | None) -> Array:
    assert bundle is not None
    return cosine.of_bundles(bundle)


def of_pairs() -> tuple[Statistic, ...]:
    """Those that compare the two inputs of a pair."""
    return (
        Statistic(
            "correlation",
            "cosine of the two states of a pair",
            "1",
            lambda view: cosine.cosine(view.state.mantissa),
            of_pair=True,
        ),
        Statistic(
            "log_decorrelation",
            "log distance ln(1 − c) of the two states of a pair",
            "nat",
            lambda view: cosine.distance(view.state.mantissa),
            logarithm=True,
            of_pair=True,
        ),
        Statistic(
            "gradient_correlation",
            "cosine of two inputs' Jacobians, tr JᵀJ'/(‖J‖‖J'‖)",
            "1",
            lambda view: _of_bundles(view.product),
            ("all",),
            of_pair=True,
        ),
        Statistic(
            "jvp_correlation",
            "cosine of J u and J' u",
            "1",
            lambda view: _of_bundles(view.vector),
            ("one",),
            directions=("forward",),
            of_pair=True,
        ),
        Statistic(
            "loss_gradient_correlation",
            "cosine of two inputs' ∂loss/∂state",
            "1",
            lambda view: _of_bundles(view.vector),
            ("one",),
            directions=("backward",),
            of_pair=True,
        ),
        Statistic(
            "weight_gradient_correlation",
            "cosine of two inputs' ∂loss/∂W at this step",
            "1",
            lambda view: by_parameter(view.weight_gradients, view.network.parameters),
            ("one", "weights"),
            directions=("backward",),
            by_parameter=True,
            of_pair=True,
        ),
        Statistic(
            "weight_gradient_sum_correlation",
            "cosine of two inputs' ∂loss/∂W summed over this step and all later ones",
            "1",
            lambda view: by_parameter(view.weight_gradient_sums, view.network.parameters),
            ("one", "weights", "weight_sums"),
            directions=("backward",),
            by_parameter=True,
            of_pair=True,
        ),
    )
