"""Functions that come from a loop over databases: they take ``(db_name, engine)``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from cronrunner.registry.declaration import Declaration

#: What a parameter is called that is no context.
_OF_A_LOOP: Final = re.compile(r"(^|_)(db|database|schema|name|tenant|engine|conn|connection)(_|$)")


@dataclass(frozen=True, slots=True)
class LoopJob:
    """Calls such a function as its loop would."""

    function: Callable[..., Any]

    def __call__(self, ctx: Any) -> Mapping[str, int] | None:  # noqa: ANN401 - a JobContext, a layer above
        """Return the counts that the function returns; what is anything else was for the loop."""
        value = self.function(ctx.tenant.database, ctx.engine)
        return value if _are_counts(value) else None


def _are_counts(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and isinstance(count, int) and not isinstance(count, bool)
        for name, count in value.items()
    )


def callable_of(
    function: Callable[..., Any], declaration: Declaration
) -> tuple[Callable[[Any], Any], Declaration]:
    """Return what takes a context, and what is declared of it.

    Raises ``ValueError`` for a function that takes neither a context nor a name and an engine.
    """
    if takes(function, 1):
        return function, declaration
    if not takes(function, 2):
        msg = "expected a function of (ctx), or of (db_name, engine)"
        raise ValueError(msg)
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        msg = "expected a plain function of (db_name, engine); one of (ctx) may be async def"
        raise ValueError(msg)
    # It commits on the engine: there is nothing that the runner could roll back.
    transaction = declaration.transaction or "none"
    return LoopJob(function), replace(declaration, transaction=transaction)


def takes(function: Callable[..., Any], count: int) -> bool:
    """Tell whether a function can be called with so many arguments."""
    try:
        inspect.signature(function).bind(*[None] * count)
    except (TypeError, ValueError):
        return False
    return True


def odd_parameters(function: Callable[..., Any]) -> str | None:
    """Say so if the names of a job's parameters are not those of what it is called with."""
    first, *others = inspect.signature(function).parameters
    if takes(function, 1):
        what = (
            f"{first} is a context, with engine and tenant; call it ctx, or take (db_name, engine)"
        )
        return what if _OF_A_LOOP.search(first) else None
    if "engine" in first and "engine" not in others[0]:
        second = others[0]
        return (
            f"{first} is the database's name, and {second} the engine; expected (db_name, engine)"
        )
    return None


def looks_like_one(function: Callable[..., Any]) -> bool:
    """Tell whether a function without a decorator may have been meant as a job."""
    names = list(inspect.signature(function).parameters)
    return takes(function, 2) and not takes(function, 1) and names[1:2] == ["engine"]
