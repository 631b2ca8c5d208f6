"""The face of cronrunner for authors of jobs.

Example::

    from cronrunner import job

    @job(schedule="0 0 * * *", timeout="5m", retries=2)
    def flag_overdue_actions(ctx):
        flagged = ctx.connection.execute(...)
        return {"flagged": flagged.rowcount}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cronrunner.errors import Cancel, Retry, Skip
from cronrunner.model import Option, RetryPolicy, Tenant
from cronrunner.registry import job, startup

if TYPE_CHECKING:
    from cronrunner.context import JobContext
    from cronrunner.databases.columns import UtcDateTime
    from cronrunner.ledger.tables import fleet_outbox

__all__ = [
    "Cancel",
    "JobContext",
    "Option",
    "Retry",
    "RetryPolicy",
    "Skip",
    "Tenant",
    "UtcDateTime",
    "fleet_outbox",
    "job",
    "startup",
]

__version__ = "0.1.0"

#: Names that need SQLAlchemy, which `cronrunner --help` must not pay for.
_LATE = {
    "JobContext": "cronrunner.context",
    "UtcDateTime": "cronrunner.databases.columns",
    "fleet_outbox": "cronrunner.ledger.tables",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the module holds
    """Import a late name when it is first used."""
    if name not in _LATE:
        msg = f"module 'cronrunner' has no attribute {name!r}"
        raise AttributeError(msg)
    from importlib import import_module  # noqa: PLC0415 - only for late names

    return getattr(import_module(_LATE[name]), name)
