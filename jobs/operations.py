"""Whether a tenant's own machinery works."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from sqlalchemy import insert, select

from cronrunner import Option, job
from jobs.audience import tell_admins
from jobs.health import PROBES, Finding, Health, examine
from jobs.schema import reports

if TYPE_CHECKING:
    from cronrunner import JobContext

#: How an instant is written in the key of a report.
_PERIOD: Final = "%Y-%m-%dT%H:%M:%SZ"


@job(
    schedule="0 * * * *",
    retries=2,
    options={
        "components": Option(
            ("all",),
            help="which components to look at",
            environment="HEALTH_CHECK_COMPONENTS",
            choices=("all", *PROBES),
        ),
        "slow_ms": Option(1000, help="a slower answer of the database is a warning", minimum=1),
        "alert_on_failure": Option(
            default=False,
            help="write to the administrators when a tenant begins to fail, and when it is well",
            environment="ALERT_ON_FAILURE",
        ),
    },
)
def health_check(ctx: JobContext) -> Mapping[str, int]:
    """Look at each component of the tenant, and keep what was found as a report.

    Each component is ok, a warning or a failure; what cannot be looked at fails. The report, of
    the kind ``health``, is kept once for each slot, and a slot that has one is not examined again.
    A tenant that is not well is what this job is there to find: it fails only when it cannot keep
    its report.

    - ``database``: a warning when it takes more than ``slow_ms`` to answer
    - ``schema``: fails when a table is missing
    - ``outbox``: a warning when a message has been due for more than 30 minutes, or was given up in
      the last 24 hours; fails when one has been due for more than 24 hours
    - ``integrations``: a warning when one that is enabled is not ok; fails when none is
    - ``email_sync``: the same for mailboxes
    - ``backups``: a warning when a component was verified more than 8 days ago, or never; fails
      when the latest verification of one has failed
    - ``jobs``: a warning when an item of a job has failed three times

    Counters:
      ok: components that are ok
      warning: components that somebody should look at when there is time
      fail: components that somebody should look at now
      alerts: messages queued
      existing: 1 when the slot had its report already; all others are then 0
      errors: items that could not be done

    From: AgencyStack: health check; Orchid cronapp: health checks
    """
    counters = {"ok": 0, "warning": 0, "fail": 0, "alerts": 0, "existing": 0, "errors": 0}
    period = ctx.slot.strftime(_PERIOD)
    if _has_report(ctx, period):
        return counters | {"existing": 1}
    was = _previous(ctx)
    findings = examine(ctx, _components(ctx))
    found = max(finding.health for finding in findings.values())
    _keep_report(ctx, period, found, findings)
    if ctx.options["alert_on_failure"] and (was is Health.FAIL) != (found is Health.FAIL):
        counters["alerts"] = _alert(ctx, period, found, findings)
    return counters | Counter(finding.health.name.lower() for finding in findings.values())


def _components(ctx: JobContext) -> list[str]:
    wanted = ctx.options["components"]
    return [name for name in PROBES if name in wanted or "all" in wanted]


def _has_report(ctx: JobContext, period: str) -> bool:
    known = select(reports.c.id).where(reports.c.kind == "health", reports.c.period_key == period)
    return ctx.connection.scalar(known) is not None


def _previous(ctx: JobContext) -> Health:
    """Return what the report before this one found; a tenant without one was well."""
    earlier = select(reports.c.summary).where(reports.c.kind == "health", reports.c.slot < ctx.slot)
    summary = ctx.connection.scalar(earlier.order_by(reports.c.slot.desc()).limit(1))
    return Health[summary["status"].upper()] if summary else Health.OK


def _keep_report(
    ctx: JobContext, period: str, found: Health, findings: Mapping[str, Finding]
) -> None:
    summary = {
        "status": found.name.lower(),
        "components": {
            component: {"status": finding.health.name.lower(), "detail": finding.detail}
            for component, finding in findings.items()
        },
    }
    report = {
        "kind": "health",
        "period_key": period,
        "slot": ctx.slot,
        "summary": summary,
        "body": _body(findings),
        "created_at": ctx.slot,
    }
    ctx.connection.execute(insert(reports).values(report))


def _alert(ctx: JobContext, period: str, found: Health, findings: Mapping[str, Finding]) -> int:
    subject = "failing" if found is Health.FAIL else "no longer failing"
    return tell_admins(ctx, f"health:{period}", f"{ctx.tenant.name} is {subject}", _body(findings))


def _body(findings: Mapping[str, Finding]) -> str:
    return "\n".join(
        f"{component}: {finding.health.name.lower()}{finding.detail and f' ({finding.detail})'}"
        for component, finding in findings.items()
    )
