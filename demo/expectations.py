"""How each job ends on each tenant, as it follows from what the jobs do and what is planted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from demo.tenants import CORRUPT, Defect, DemoTenant

#: How jobs end, by job and tenant; the fleet's own work has no tenant.
Endings = Mapping[tuple[str, str], str]

CLEANUP: Final = "cleanup.rate_limits"
_OVERDUE: Final = "compliance.overdue_actions"
_DASHBOARD: Final = "reports.update_dashboard"
_OPTIMIZE: Final = "maintenance.optimize_tables"

JOBS: Final = frozenset({
    "alerts.certificates",
    "alerts.credentials",
    "alerts.subscriptions",
    CLEANUP,
    "cleanup.sessions",
    "cleanup.tokens",
    "comms.deliver",
    "compliance.drift_snapshot",
    _OVERDUE,
    "exchanges.auto_complete",
    "exchanges.purge",
    "exchanges.remind",
    "finance.exchange_rates",
    _OPTIMIZE,
    "maintenance.verify_backups",
    "notifications.dispatch",
    "operations.email_sync_monitor",
    "operations.health_check",
    "operations.refresh_integrations",
    "reports.aggregate_metrics",
    "reports.inactive_users",
    "reports.overnight",
    _DASHBOARD,
    "reports.usage",
    "retention.apply_policies",
    "retention.archive_audit_log",
    "uar.execute_due",
})  # fmt: skip
"""The jobs that run on each tenant."""

FLEET: Final = {
    "comms.deliver_fleet": "succeeded",
    "finance.exchange_rates:prepare": "succeeded",
    # One of the log files cannot be dealt with: its compressed name is taken.
    "maintenance.rotate_logs": "succeeded, 1 errors",
    "operations.refresh_integrations:prepare": "succeeded",
    "compliance.drift_snapshot:summarize": "succeeded",
    "reports.inactive_users:summarize": "succeeded",
    "reports.overnight:summarize": "succeeded",
    "reports.usage:summarize": "succeeded",
}
"""What is done once, and how it ends."""

_REMOVES: Final = frozenset(
    {"exchanges.purge", "retention.apply_policies", "retention.archive_audit_log"}
)
"""Jobs that skip a tenant of which nothing may be removed."""


class _Errors(NamedTuple):
    """Items that cannot be done: when a slot is run first, and when it is repeated."""

    first: int
    again: int


_BAD_ROWS: Final = {
    "alerts.certificates": _Errors(1, 1),
    # The slot has its snapshot, and the review of the period is done.
    "compliance.drift_snapshot": _Errors(1, 0),
    "uar.execute_due": _Errors(2, 1),
    "finance.exchange_rates": _Errors(1, 1),
    "exchanges.purge": _Errors(1, 1),
    # Who cannot be reminded is not tried again.
    "exchanges.remind": _Errors(2, 1),
    "notifications.dispatch": _Errors(2, 2),
    "operations.email_sync_monitor": _Errors(1, 1),
    "operations.refresh_integrations": _Errors(2, 2),
}
"""Of a tenant with bad rows: each such job succeeds all the same. The others never read them."""


class _Failure(NamedTuple):
    """Which jobs do not succeed, and how they end."""

    jobs: frozenset[str]
    outcome: str = "failed"


_NONE: Final = _Failure(frozenset())
_ALL: Final = _Failure(JOBS)

_FAILURES: Final[Mapping[Defect, _Failure | Mapping[str, _Failure]]] = {
    # The health check finds that the table is missing, and that is a success.
    Defect.MISSING_TABLE: _Failure(frozenset({CLEANUP})),
    Defect.LOCKED: {
        # Every job writes something, and the file has one writer. What is locked is left alone by
        # the one that optimizes.
        "sqlite": _Failure(JOBS - {_OPTIMIZE}),
        # Rows of work_items are locked: one job writes them, the others read or ignore them.
        "mariadb": _Failure(frozenset({_OVERDUE})),
    },
    # The health check as well: there is no table that could keep its report.
    Defect.EMPTY: _ALL,
    Defect.UNREACHABLE: {
        # A file that cannot be opened is a tenant that is gone; a silent port is a failure.
        "sqlite": _Failure(JOBS, "tenant_gone"),
        "mariadb": _ALL,
    },
}
"""What goes wrong by defect, and by the kind of database where that matters."""


def expected(
    tenants: Iterable[DemoTenant], kind: str, *, again: bool = False
) -> dict[tuple[str, str], str]:
    """Return how each job ends on each tenant when the slot is run first, or ``again``."""
    endings = {(work, ""): ending for work, ending in FLEET.items()}
    for tenant in tenants:
        failure = _failure(tenant.defect, kind)
        for job in JOBS:
            endings[job, tenant.name] = _ending(job, tenant, failure, again=again)
    if kind == "sqlite":
        endings |= {(job, CORRUPT): "failed" for job in JOBS}
    return endings


def _failure(defect: Defect, kind: str) -> _Failure:
    failure = _FAILURES.get(defect, _NONE)
    return failure if isinstance(failure, _Failure) else failure[kind]


def _ending(job: str, tenant: DemoTenant, failure: _Failure, *, again: bool) -> str:
    # A tenant on hold is asked before its rows are; one that cannot be reached is not asked.
    if tenant.is_on_hold and job in _REMOVES and tenant.defect is not Defect.UNREACHABLE:
        return "skipped"
    if job in failure.jobs:
        return failure.outcome
    if again and job == _DASHBOARD:
        # Its tiles are those of this hour.
        return "skipped"
    errors = _BAD_ROWS.get(job) if tenant.defect is Defect.BAD_ROWS else None
    return ending_of("succeeded", errors[again] if errors else 0)


def ending_of(outcome: str, errors: int) -> str:
    """Say how a job has ended in one word, or in three when there were items it could not do."""
    return f"{outcome}, {errors} errors" if errors else outcome


def mismatches(planned: Endings, got: Endings) -> Iterator[str]:
    """Yield a line for each job and tenant that has not ended as planned."""
    for job, tenant in sorted(planned.keys() | got.keys()):
        wanted, found = (each.get((job, tenant), "nothing") for each in (planned, got))
        if wanted != found:
            yield f"{job} on {tenant or 'the fleet'}: expected {wanted}, got {found}"
