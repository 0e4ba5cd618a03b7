"""The published and exact results that gradsim reproduces, each with the networks that are measured for it.

>>> from gradsim.laws import LAWS
>>> [check.holds for check in LAWS["A14"].measure(1, 0)]
[True]
"""

from gradsim.laws import (
    architectures,
    exact,
    exponents,
    initialization,
    mean_field,
    memory,
    precision,
    transformers,
    two_inputs,
)
from gradsim.laws.record import ERRORS, Check, Law

LAWS: dict[str, Law] = {
    law.id: law
    for module in (
        exact,
        mean_field,
        architectures,
        exponents,
        transformers,
        two_inputs,
        memory,
        initialization,
        precision,
    )
    for law in module.LAWS
}
"""Laws by id, in the order of their subjects."""

__all__ = ["ERRORS", "LAWS", "Check", "Law"]
