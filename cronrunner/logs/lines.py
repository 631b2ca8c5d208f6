"""Every log line of the product: one function for each event, in the order of ``events``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import singledispatch
from typing import Any, NamedTuple

from cronrunner import events
from cronrunner.model import EMPTY, WELL, Killed, Request, Result


class Line(NamedTuple):
    """A line of the product: its level, text, stable name, and fields."""

    level: str
    text: str
    action: str
    fields: Mapping[str, Any] = EMPTY


def write(
    log: Any,  # noqa: ANN401 - a structlog logger has no better type
    line: Line,
    error: BaseException | None = None,
) -> None:
    """Write ``line``, with the traceback of ``error`` if there is one."""
    getattr(log, line.level)(line.text, _line=line, exc_info=error)


@singledispatch
def line_of(event: events.Event) -> Line:
    """Return the line of an event. Every event has one; a test keeps it so."""
    raise NotImplementedError(type(event).__name__)


@line_of.register
def _(event: events.RunStarted) -> Line:
    run = event.run
    fields: dict[str, Any] = {"run": run.id, "slot": run.slot.key, "command": run.command}
    if event.lateness is not None:
        fields["lateness_seconds"] = event.lateness.total_seconds()
    if run.dry_run:
        fields["dry_run"] = True
    text = "dry run started: nothing that it does stays" if run.dry_run else "run started"
    return Line("info", text, "run.started", fields)


@line_of.register
def _(event: events.RunPlanned) -> Line:
    fields = {
        "run": event.run.id,
        "tenants": event.tenants,
        "executions": event.executions,
        "concurrency": event.concurrency,
    }
    return Line("info", "run planned", "run.planned", fields)


@line_of.register
def _(event: events.RunFinished) -> Line:
    report = event.report
    outcomes = {str(outcome): count for outcome, count in report.outcomes.items() if count}
    said = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
    fields = {
        "run": report.run.id,
        "slot": report.run.slot.key,
        "exit_code": int(report.exit_code),
        "duration_seconds": report.duration_seconds,
        "tenants": report.tenants,
        "executions": report.planned,
        "outcomes": outcomes,
        "duplicates": report.duplicates,
        "held": report.held,
        "errors": report.errors,
    }
    if report.run.dry_run:
        fields["dry_run"] = True
    what = "dry run" if report.run.dry_run else "run"
    return Line("info", f"{what} finished: {said or 'nothing to do'}", "run.finished", fields)


@line_of.register
def _(event: events.RunDraining) -> Line:
    fields = {"signal": event.signal, "running": event.running}
    return Line("warning", "run draining: nothing new starts", "run.draining", fields)


@line_of.register
def _(event: events.RunInterruptedFound) -> Line:
    fields = {"run": event.run, "executions": event.executions}
    return Line("warning", "an earlier run died", "run.interrupted_found", fields)


@line_of.register
def _(event: events.TenantsDiscovered) -> Line:
    fields = {"server": event.server, "tenants": event.tenants}
    return Line("info", "tenants discovered", "discovery.finished", fields)


@line_of.register
def _(event: events.DiscoveryFailed) -> Line:
    fields = {"server": event.server, "reason": event.reason, "error": event.error}
    return Line("error", "discovery failed: nothing of it runs", "discovery.failed", fields)


@line_of.register
def _(event: events.DiscoveryShrank) -> Line:
    shrink = event.shrink
    fields = {
        "server": shrink.server,
        "accepted": shrink.accepted,
        "found": shrink.found,
        "missing": shrink.missing,
    }
    return Line("error", "discovery shrank: what was found runs", "discovery.shrank", fields)


@line_of.register
def _(event: events.TenantRefused) -> Line:
    fields = {"server": event.server, "reason": event.reason}
    return Line("warning", "a name cannot be a tenant's", "discovery.tenant_refused", fields)


@line_of.register
def _(event: events.JobFileBroken) -> Line:
    fields = {"error": event.problem}
    return Line("error", "a job file is broken: its jobs are disabled", "job_file.broken", fields)


@line_of.register
def _(event: events.SlotsMissed) -> Line:
    fields = {"job": event.job, "slots": event.slots}
    return Line("warning", "slots were missed: nothing was run for them", "slots.missed", fields)


@line_of.register
def _(event: events.ClaimRefused) -> Line:
    key = event.key
    fields = {"job": key.job, "tenant": key.tenant, "slot": key.slot_key, "holder": event.holder}
    text = "another run is doing this work" if event.held else "this work is done"
    return Line("debug", text, "claim.refused", {**fields, "held": event.held})


@line_of.register
def _(event: events.ExecutionStarted) -> Line:
    fields = words_of(event.request, event.tenant.server)
    return Line("debug", "execution started", "execution.started", fields)


@line_of.register
def _(event: events.ExecutionFinished) -> Line:
    result = event.result
    level = "info" if result.outcome in WELL else "error"
    text = f"execution {result.outcome.replace('_', ' ')}"
    return Line(level, text, "execution.finished", _fields_of(result))


@line_of.register
def _(event: events.AttemptFailed) -> Line:
    fields = {**_fields_of(event.result), "delay_seconds": event.delay.total_seconds()}
    return Line("warning", "attempt failed, to be repeated", "attempt.failed", fields)


@line_of.register
def _(event: events.ExecutionStuck) -> Line:
    fields = {**words_of(event.request, event.server), "stack": event.stack}
    return Line("error", "execution cannot be ended", "execution.stuck", fields)


@line_of.register
def _(event: events.DeadlineEnforced) -> Line:
    fields = {"server": event.server, "killed": event.killed.value}
    # A SQLite file cannot say whether there was anything to cancel.
    is_cancelled = event.killed is Killed.STATEMENT
    text = "a cancel was sent" if is_cancelled else f"a {event.killed} was ended"
    return Line("warning", text, "deadline.enforced", fields)


@line_of.register
def _(event: events.VisitFinished) -> Line:
    fields = {"tenant": event.tenant, "duration_seconds": event.seconds}
    return Line("debug", "visit finished", "visit.finished", fields)


@line_of.register
def _(event: events.BreakerOpened) -> Line:
    fields = {
        "server": event.server,
        "failed_probes": event.failed_probes,
        "wait_seconds": event.wait.total_seconds(),
    }
    return Line("warning", "a server refuses: its visits wait", "breaker.opened", fields)


@line_of.register
def _(event: events.BreakerClosed) -> Line:
    fields = {"server": event.server}
    return Line("info", "a server is back: its visits go on", "breaker.closed", fields)


@line_of.register
def _(event: events.PairQuarantined) -> Line:
    fields = {"job": event.job, "tenant": event.tenant, "failures": event.failures}
    return Line("warning", "a job is quarantined on a tenant", "pair.quarantined", fields)


@line_of.register
def _(event: events.PairReleased) -> Line:
    fields = {"job": event.job, "tenant": event.tenant}
    return Line("info", "a job is out of quarantine on a tenant", "pair.released", fields)


@line_of.register
def _(event: events.Warned) -> Line:
    return Line("warning", event.text, "warned", {"subject": event.subject})


@line_of.register
def _(event: events.LedgerPruned) -> Line:
    fields = {"rows": event.rows, "before": event.before.isoformat()}
    return Line("info", "old history was removed", "ledger.pruned", fields)


@line_of.register
def _(event: events.OutcomesSpooled) -> Line:
    spooled = event.spooled
    fields = {
        "run": event.run,
        "spool": spooled.path,
        "executions": spooled.outcomes,
        "lost": spooled.lost,
    }
    return Line("error", "the ledger is lost: outcomes are spooled", "spool.written", fields)


@line_of.register
def _(event: events.SpoolImported) -> Line:
    fields = {"run": event.run, "executions": event.outcomes}
    return Line("warning", "outcomes of a spool are in the ledger", "spool.imported", fields)


@line_of.register
def _(event: events.SinkFailed) -> Line:
    fields = {"sink": event.sink, "error": event.error}
    return Line("warning", "metrics could not be delivered", "sink.failed", fields)


def words_of(request: Request, server: str) -> dict[str, Any]:
    key = request.key
    return {
        "job": key.job,
        "tenant": key.tenant,
        "attempt": request.attempt,
        "run": request.run,
        "slot": key.slot_key,
        "server": server,
    }


def _fields_of(result: Result) -> dict[str, Any]:
    fields = words_of(result.request, result.server)
    fields["outcome"] = result.outcome
    fields["duration_seconds"] = result.duration_seconds
    if result.request.dry_run:
        fields |= {"dry_run": True, "rows_changed": result.rows_changed}
    for name in ("reason", "error", "cause", "code", "counters", "note", "traceback"):
        value = getattr(result, name)
        if value:
            fields[name] = value
    return fields


def uncaught(place: str) -> Line:
    """Return the line of an exception that nothing caught; ``place`` is a thread or similar."""
    return Line("critical", "uncaught exception", "exception.uncaught", {"place": place})


def request_served(text: str) -> Line:
    """Return the line of a request to the metrics server."""
    return Line("debug", text, "request.served")
