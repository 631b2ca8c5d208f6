"""Every event once, and what was logged of it."""

import io
import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cronrunner import events
from cronrunner.logs import flush
from cronrunner.model import (
    Key,
    Killed,
    Outcome,
    Report,
    Request,
    Result,
    Run,
    Shrink,
    Slot,
    Spooled,
    Tenant,
)

PASSWORD = "p4ss/w0rd!"
ROW = "row-value-4711"
TENANT = Tenant(name="acme", server="main", database="agency_acme")
AT = datetime(2026, 11, 21, tzinfo=UTC)
REQUEST = Request(
    key=Key(job="compliance.overdue", tenant="acme", slot_key="2026-11-21T00:00:00Z"),
    run="01JD8",
    slot=AT,
    attempt=2,
    fence=1,
)
WORDS = {
    "run": "01JD8",
    "job": "compliance.overdue",
    "tenant": "acme",
    "slot": "2026-11-21T00:00:00Z",
    "attempt": 2,
    "server": "main",
}
RUN = Run(
    id="01JD8",
    command="run",
    started_at=AT,
    scheduled_at=AT,
    host="h",
    boot="b",
    pid=1,
    pid_started=1,
    slot=Slot.scheduled(AT),
)
REPORT = Report(
    run=RUN,
    finished_at=AT,
    duration_seconds=1.5,
    tenants=3,
    planned=6,
    outcomes={Outcome.SUCCEEDED: 5, Outcome.FAILED: 1},
    duplicates=0,
    held=0,
    errors=(),
    causes=(),
    unwell_tenants=1,
    slowest=(),
)


def result(outcome: Outcome = Outcome.SUCCEEDED, **given: Any) -> Result:
    return Result(
        request=given.pop("request", REQUEST),
        server="main",
        outcome=outcome,
        started_at=AT,
        duration_seconds=0.25,
        **given,
    )


#: A line has all of its fields in a dry run only.
DRY_REPORT = replace(REPORT, run=replace(RUN, dry_run=True))
DRY_REQUEST = replace(REQUEST, dry_run=True)


FAILED = result(
    Outcome.FAILED,
    request=DRY_REQUEST,
    reason="why",
    error="ValueError: no",
    cause="no",
    code="ValueError",
    traceback="Traceback ...",
    counters={"flagged": 3},
    note="half of it",
)

EVENTS: tuple[events.Event, ...] = (
    events.RunStarted(run=DRY_REPORT.run, lateness=timedelta(seconds=3)),
    events.RunPlanned(run=RUN, tenants=3, executions=6, concurrency=2),
    events.RunFinished(report=DRY_REPORT),
    events.RunDraining(signal="SIGTERM", running=2),
    events.RunInterruptedFound(run="01JD7", executions=4),
    events.TenantsDiscovered(server="main", tenants=3),
    events.DiscoveryFailed(server="main", reason="unreachable", error="OperationalError 2003: no"),
    events.DiscoveryShrank(shrink=Shrink(server="main", accepted=9, found=3, missing=("a", "b"))),
    events.TenantRefused(server="main", reason="a name"),
    events.JobFileBroken(problem="jobs/x.py:3: no"),
    events.SlotsMissed(job="cleanup.rows", slots=4),
    events.ClaimRefused(key=REQUEST.key, holder="01JD7", held=True),
    events.ExecutionStarted(request=REQUEST, tenant=TENANT),
    events.ExecutionFinished(result=FAILED),
    events.AttemptFailed(result=replace(FAILED, code="1213"), delay=timedelta(seconds=2)),
    events.ExecutionStuck(request=REQUEST, server="main", stack='File "jobs/x.py", line 3'),
    events.VisitFinished(tenant="acme", seconds=0.5),
    events.DeadlineEnforced(server="main", killed=Killed.STATEMENT),
    events.LedgerPruned(rows=12, before=datetime(2026, 3, 1, tzinfo=UTC)),
    events.BreakerOpened(server="main", failed_probes=1, wait=timedelta(seconds=20)),
    events.BreakerClosed(server="main"),
    events.PairQuarantined(job="compliance.overdue", tenant="acme", failures=5),
    events.PairReleased(job="compliance.overdue", tenant="acme"),
    events.Warned(subject="ledger", text="the ledger is in a container"),
    events.OutcomesSpooled(
        run="01JD7", spooled=Spooled(path="var/spool/01JD7.spool", outcomes=4, lost=1)
    ),
    events.SpoolImported(run="01JD7", outcomes=4),
    events.SinkFailed(sink="pushgateway", error="no"),
)


def describe(error: BaseException) -> str:
    """As the databases do it: no row values."""
    return f"{type(error).__name__}: {str(error).replace(ROW, '?')}"


def warn(text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(text, stacklevel=2)


class Log:
    """What was logged."""

    def __init__(self, stream: io.StringIO) -> None:
        self._stream = stream

    @property
    def text(self) -> str:
        flush()
        return self.written

    @property
    def written(self) -> str:
        return self._stream.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]

    @property
    def line(self) -> dict[str, Any]:
        (line,) = self.lines
        return line


Make = Callable[..., Log]
