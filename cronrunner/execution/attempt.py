"""What is known of one attempt, and of the work that it is an attempt at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from cronrunner.context import JobContext
from cronrunner.engines import TenantEngine
from cronrunner.errors import Cancel, Skip
from cronrunner.model import (
    EMPTY,
    Job,
    Request,
    Tenant,
)
from cronrunner.watchdog import Deadline


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a job name stands for on one tenant, overrides applied."""

    job: Job
    #: The job's function, or its ``prepare`` or ``summarize``.
    call: Callable[[JobContext], Any]
    options: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    prepared: Any = None
    delay: timedelta | None = None
    #: For ``summarize``: the slot's executions.
    results: Callable[[], Any] | None = None
    #: The call returns JSON to be kept, not counters.
    keeps_value: bool = False


#: Finds the work of a request; raises ``LookupError`` for one that this process does not know.
Resolve = Callable[[Request, Tenant], Work]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Everything that is known of an attempt so far."""

    request: Request
    tenant: Tenant
    engine: TenantEngine | None
    started_at: datetime
    started: float
    work: Work | None = None
    context: JobContext | None = None
    value: Any = None
    error: BaseException | None = None
    #: The error came before the job was called.
    unreached: bool = False
    #: The slot's marker was there: its transaction had been committed, and not been recorded.
    recovered: bool = False
    #: Counted in a dry run only.
    rows_changed: int = 0
    #: The deadline that expired, if one did.
    deadline: Deadline | None = None
    #: The visit has another job, for the same session.
    more: bool = False

    @property
    def is_clean(self) -> bool:
        """Whether nothing has gone wrong that its session might remember."""
        by_choice = self.error is None or isinstance(self.error, Skip | Cancel)
        return by_choice and self.deadline is None and not self.unreached
