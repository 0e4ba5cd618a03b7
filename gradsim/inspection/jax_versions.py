"""What differs between jax 0.10 and jax 0.12: closed programs, the sizes of a scan, how an equation is bound."""

import re
from collections.abc import Sequence
from pathlib import Path
from sysconfig import get_path
from typing import Any

from jax.extend.core import jaxpr_as_fun

OURS = Path(__file__).parent

# Equations that only call a program: they are opened, and their own equations take their place. shard_map is not
# among them: its program sees the part of an array that one device holds.
CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "call": "call_jaxpr",
    "remat": "jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
}


def opened(program: Any) -> tuple[Any, list[Any]]:
    """The open program and its constants; jax 0.12 has one class for open and closed ones."""
    if hasattr(program, "jaxpr"):
        return program.jaxpr, list(program.consts)
    return program, []


def called(equation: Any) -> Any | None:
    """The program that the equation calls, or None where it does more than to call one."""
    return equation.params.get(CALLS.get(equation.primitive.name, ""))


def is_program(value: Any) -> bool:
    """Is it a program, open or closed?"""
    return hasattr(value, "eqns")


def scan_sizes(params: Any) -> tuple[int, int]:
    """How many of a scan's operands are constants, and how many its carry."""
    if "ft_in" in params:
        constants, carry, _ = params["ft_in"].unpack()
        return len(constants), len(carry)
    return params["num_consts"], params["num_carry"]


def bind(equation: Any, operands: Sequence[Any]) -> list[Any]:
    """The equation's results at these operands."""
    found = equation.primitive.get_bind_params(equation.params)
    functions, params = found if isinstance(found, tuple) else ((), found)
    results = equation.primitive.bind(*functions, *operands, **params)
    return list(results) if equation.primitive.multiple_results else [results]


def evaluated(program: Any, atoms: Sequence[Any], operands: Sequence[Any]) -> list[Any]:
    """The values of some of a closed program's operands and results at these operands."""
    jaxpr, _ = opened(program)
    wanted = jaxpr.replace(outvars=list(atoms))
    return jaxpr_as_fun(wanted if jaxpr is program else program.replace(jaxpr=wanted))(*operands)


def scope_of(equation: Any) -> tuple[str, ...]:
    """The scopes of `jax.named_scope` in which the equation stands, within its own program, under vmap or not."""
    stack = str(getattr(getattr(equation, "source_info", None), "name_stack", ""))
    return tuple(filter(None, re.sub(r"\w+\(|\)", "", stack).split("/")))


def written_at(equation: Any) -> str:
    """File and line of the innermost code of the equation's that is in no installed package, "" where none is known."""
    traceback = getattr(getattr(equation, "source_info", None), "traceback", None)
    for frame in getattr(traceback, "frames", ()):
        name = frame.file_name
        if not name.startswith((get_path("purelib"), get_path("stdlib"), str(OURS), "<")):
            return f"{Path(name).name}:{frame.line_num}"
    return ""
