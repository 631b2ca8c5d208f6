"""How each job ends on each tenant, as it follows from what the jobs do and what is planted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from demo.tenants import CORRUPT, Defect, DemoTenant


class Failure(NamedTuple):
    """Which jobs do not succeed, and how they end."""

    jobs: frozenset[str]
    outcome: str = "failed"


OVERDUE: Final = "compliance.overdue_actions"
CLEANUP: Final = "cleanup.rate_limits"
HEALTH: Final = "operations.health_check"
METRICS: Final = "reports.aggregate_metrics"

JOBS: Final = frozenset({OVERDUE, CLEANUP, HEALTH, METRICS})

_NONE: Final = Failure(frozenset())
_ALL: Final = Failure(JOBS)

_FAILURES: Final[Mapping[Defect, Failure | Mapping[str, Failure]]] = {
    Defect.NONE: _NONE,
    # Each of the four leaves out, or never reads, the rows that are bad.
    Defect.BAD_ROWS: _NONE,
    # The health check finds that the table is missing, and that is a success.
    Defect.MISSING_TABLE: Failure(frozenset({CLEANUP})),
    Defect.SLOW: _NONE,
    Defect.LOCKED: {
        # Every job writes something, and the file has one writer.
        "sqlite": _ALL,
        # Rows of work_items are locked: one job writes them, the others read or ignore them.
        "mariadb": Failure(frozenset({OVERDUE})),
    },
    # The health check as well: there is no table that could keep its report.
    Defect.EMPTY: _ALL,
    Defect.UNREACHABLE: {
        # A file that cannot be opened is a tenant that is gone; a silent port is a failure.
        "sqlite": Failure(JOBS, "tenant_gone"),
        "mariadb": _ALL,
    },
    Defect.LARGE: _NONE,
}
"""What goes wrong by defect, and by the kind of database where that matters."""


def expected(tenants: Iterable[DemoTenant], kind: str) -> dict[tuple[str, str], str]:
    """Return the outcome of each job on each tenant, by job and tenant."""
    planned = [(tenant.name, _failure(tenant.defect, kind)) for tenant in tenants]
    if kind == "sqlite":
        planned.append((CORRUPT, _ALL))
    return {
        (job, name): failure.outcome if job in failure.jobs else "succeeded"
        for name, failure in planned
        for job in sorted(JOBS)
    }


def _failure(defect: Defect, kind: str) -> Failure:
    failure = _FAILURES[defect]
    return failure if isinstance(failure, Failure) else failure[kind]


def mismatches(
    planned: Mapping[tuple[str, str], str], got: Mapping[tuple[str, str], str]
) -> Iterator[str]:
    """Yield a line for each job and tenant whose outcome is not the planned one."""
    for job, tenant in sorted(planned.keys() | got.keys()):
        wanted, found = (each.get((job, tenant), "nothing") for each in (planned, got))
        if wanted != found:
            yield f"{job} on {tenant}: expected {wanted}, got {found}"
