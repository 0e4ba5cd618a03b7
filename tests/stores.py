"""What tests of stores share."""

from collections.abc import Callable

import xarray


def same(
    kept: xarray.Dataset, whole: xarray.Dataset, compare: Callable[..., None] = xarray.testing.assert_identical
) -> None:
    """All but where and when it was made."""
    own = ("created", "command", "done")
    one, other = (each.assign_attrs(dict.fromkeys(own, "")) for each in (kept.load(), whole))
    compare(one, other)
    assert one.attrs == other.attrs
    assert {name: values.attrs for name, values in one.variables.items()} == {
        name: values.attrs for name, values in other.variables.items()
    }
    assert list(one.data_vars) == list(other.data_vars)
