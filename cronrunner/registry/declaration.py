"""What an author writes: the ``@job`` decorator."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any, Final, overload

from cronrunner.model import (
    RetryPolicy,
)

JobFunction = Callable[..., Any]

#: Where a decorated function keeps its declaration.
MARK: Final = "__cronrunner_declaration__"
#: Marks the start-up hook.
STARTUP: Final = "__cronrunner_startup__"


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """What an author wrote, as it was written."""

    name: str | None = None
    schedule: str | None = None
    every: str | timedelta | None = None
    timezone: str = "UTC"
    catch_up: str | timedelta = "24h"
    timeout: str | timedelta = "5m"
    retries: int = 0
    retry: RetryPolicy | None = None
    scope: str = "tenant"
    #: ``None`` if the author left it out: ``"tenant"``, or what else the kind of the job needs.
    transaction: str | None = None
    overlap: str = "skip"
    server_lock: bool = False
    tenants: str | Sequence[str] = "*"
    labels: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    prepare: JobFunction | None = None
    summarize: JobFunction | None = None
    exactly_once: bool = False
    isolation: str | None = None
    effects: str = "database"
    enabled: bool = True
    #: Arguments that are none, to be reported with all else that is wrong with the file.
    unknown: tuple[str, ...] = ()


#: The arguments of ``job``.
ARGUMENTS: Final = tuple(each.name for each in fields(Declaration) if each.name != "unknown")


@overload
def job(function: JobFunction) -> JobFunction: ...
@overload
def job(
    *,
    name: str | None = None,
    schedule: str | None = None,
    every: str | timedelta | None = None,
    timezone: str = "UTC",
    catch_up: str | timedelta = "24h",
    timeout: str | timedelta = "5m",
    retries: int = 0,
    retry: RetryPolicy | None = None,
    scope: str = "tenant",
    transaction: str = "tenant",
    overlap: str = "skip",
    server_lock: bool = False,
    tenants: str | Sequence[str] = "*",
    labels: Mapping[str, str] = ...,
    options: Mapping[str, Any] = ...,
    prepare: JobFunction | None = None,
    summarize: JobFunction | None = None,
    exactly_once: bool = False,
    isolation: str | None = None,
    effects: str = "database",
    enabled: bool = True,
) -> Callable[[JobFunction], JobFunction]: ...
def job(
    function: JobFunction | None = None, **declared: Any
) -> JobFunction | Callable[[JobFunction], JobFunction]:
    """Declare a function that takes a ``JobContext`` to be a job.

    One that takes a database's name and an engine is called with those of the tenant.
    ``schedule`` is a cron expression of five fields; ``every`` a duration such as ``"15m"``
    instead. ``timezone`` is the zone of the schedule, or ``"tenant"`` for each tenant's own.
    ``cronrunner due`` does a slot that is up to ``catch_up`` late. ``timeout`` is a duration.
    ``retries`` is how often a transient failure is repeated; ``retry`` gives the whole policy
    instead. ``scope`` is ``"tenant"`` or ``"fleet"``. ``transaction`` is ``"tenant"`` (one
    transaction, committed on return), ``"batch"`` (each of ``ctx.batches`` is committed with its
    checkpoint) or ``"none"`` (the job commits). ``tenants`` (globs) and ``labels`` say which
    tenants the job is for. ``options`` maps names to defaults, or to ``Option``s. ``prepare`` runs
    once before the fan-out and gives each execution its ``ctx.prepared``; ``summarize`` runs once
    after it.
    ``overlap`` says what is done while an earlier slot of the job is at work on the tenant:
    ``"skip"``, ``"wait"`` or ``"allow"``; ``server_lock`` also holds a named lock of the
    tenant's server, against whatever else takes it. ``exactly_once`` writes a marker into the
    tenant's database in the job's transaction, so that not even a killed process makes a slot
    run twice. ``isolation`` is ``"process"`` for a job that blocks in C code or may crash the
    interpreter; ``"thread"`` and ``None`` say the opposite and nothing. ``effects`` is
    ``"external"`` for a job that does what no rollback undoes (mail, HTTP, files): dry runs leave
    it out, and ``check`` warns of it; ``"repeatable"`` if the job sees to it that a slot which is
    repeated does no harm.

    The function returns ``None`` or a mapping of counter names to whole numbers.
    """
    known = {name: value for name, value in declared.items() if name in ARGUMENTS}
    unknown = tuple(name for name in declared if name not in ARGUMENTS)
    declaration = Declaration(**known, unknown=unknown)

    def mark(function: JobFunction) -> JobFunction:
        if not inspect.isfunction(function):
            msg = f"expected @job on a function, got {function!r}; use @job(schedule=...) for keys"
            raise TypeError(msg)
        setattr(function, MARK, declaration)
        return function

    return mark if function is None else mark(function)


def startup(function: JobFunction) -> JobFunction:
    """Declare a function without parameters to be the folder's start-up hook.

    It is called once in each process that runs jobs in Python, before the first of them; what it
    returns is their ``ctx.app``.
    """
    if not inspect.isfunction(function):
        msg = f"expected @startup on a function, got {function!r}"
        raise TypeError(msg)
    setattr(function, STARTUP, True)
    return function
