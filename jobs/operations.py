"""Whether a tenant's own machinery works."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from cronrunner import Option, job
from jobs.audience import tell_admins
from jobs.filing import file_report, is_filed
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

    A tenant that is not well is what this job is there to find: it fails only when it cannot
    keep its report. A slot that has a report is not examined again. A component is a
    ``warning``, or a ``fail``, when this is true of it; one that cannot be looked at fails, and
    one of which there is nothing is well:

    - ``database``: its answer takes more than ``slow_ms`` (warning)
    - ``schema``: a table is missing (fail)
    - ``outbox``: a message has been due for more than 30 minutes, or was given up less than 24
      hours ago (warning); one has been due for more than 24 hours (fail)
    - ``integrations``: some that are enabled are not ``ok`` (warning), or all (fail)
    - ``email_sync``: the same of the mailboxes
    - ``backups``: one was verified more than 8 days ago, or never (warning); its latest
      verification failed (fail)
    - ``jobs``: an item of a job has failed three times (warning)

    Administrators are told when a tenant begins to fail and when it no longer does, if
    ``alert_on_failure`` is set.

    Counters:
      ok: components that are well
      warning: components that somebody should look at
      fail: components that somebody should look at now
      alerts: e-mails to administrators
      existing: 1 if the slot had its report before, and then all others are 0
      errors: always 0, since what cannot be looked at fails

    From: AgencyStack: health check; Orchid cronapp: health checks
    """
    counters = {"ok": 0, "warning": 0, "fail": 0, "alerts": 0, "existing": 0, "errors": 0}
    period = ctx.slot.strftime(_PERIOD)
    if is_filed(ctx, "health", period):
        return counters | {"existing": 1}
    was = _previous(ctx)
    findings = examine(ctx, _components(ctx))
    found = max(finding.health for finding in findings.values())
    file_report(ctx, "health", period, _summary(found, findings), _body(findings))
    if ctx.options["alert_on_failure"] and (was is Health.FAIL) != (found is Health.FAIL):
        counters["alerts"] = _alert(ctx, period, found, findings)
    return counters | Counter(finding.health.name.lower() for finding in findings.values())


def _components(ctx: JobContext) -> list[str]:
    wanted = ctx.options["components"]
    return [name for name in PROBES if name in wanted or "all" in wanted]


def _previous(ctx: JobContext) -> Health:
    """Return what the report before this one found; a tenant without one was well."""
    earlier = select(reports.c.summary).where(reports.c.kind == "health", reports.c.slot < ctx.slot)
    summary = ctx.connection.scalar(earlier.order_by(reports.c.slot.desc()).limit(1))
    return Health[summary["status"].upper()] if summary else Health.OK


def _summary(found: Health, findings: Mapping[str, Finding]) -> dict[str, Any]:
    return {
        "status": found.name.lower(),
        "components": {
            component: {"status": finding.health.name.lower(), "detail": finding.detail}
            for component, finding in findings.items()
        },
    }


def _alert(ctx: JobContext, period: str, found: Health, findings: Mapping[str, Finding]) -> int:
    subject = "failing" if found is Health.FAIL else "no longer failing"
    return tell_admins(ctx, f"health:{period}", f"{ctx.tenant.name} is {subject}", _body(findings))


def _body(findings: Mapping[str, Finding]) -> str:
    return "\n".join(
        f"{component}: {finding.health.name.lower()}{finding.detail and f' ({finding.detail})'}"
        for component, finding in findings.items()
    )
