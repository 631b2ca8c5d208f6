"""The probes of the health check: one function for each component of a tenant."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Row, Select, and_, func, inspect, literal, select
from sqlalchemy.exc import DBAPIError

from jobs.schema import backups, integrations, job_items, metadata, outbox

if TYPE_CHECKING:
    from cronrunner import JobContext


class Health(IntEnum):
    """How well something is; of several the greatest counts."""

    OK = 0
    #: Somebody should look at it when there is time.
    WARNING = 1
    #: Somebody should look at it now.
    FAIL = 2


class Finding(NamedTuple):
    """What a probe found, and why."""

    health: Health = Health.OK
    detail: str = ""


Probe = Callable[["JobContext"], Finding]

#: Results of a verification which say that the backup could not be restored.
BROKEN_BACKUP: Final = ("missing", "stale", "unreadable", "size_mismatch", "corrupt")

_LATE: Final = timedelta(minutes=30)
_TOO_LATE: Final = timedelta(hours=24)
_RECENTLY: Final = timedelta(hours=24)
#: Backups are verified once a week; a day is left for a late run.
_VERIFIED_WITHIN: Final = timedelta(days=8)
_MANY_ATTEMPTS: Final = 3


def examine(ctx: JobContext, components: Iterable[str]) -> dict[str, Finding]:
    """Probe each component; one that cannot be looked at fails, and the others go on."""
    return {component: _look(ctx, PROBES[component]) for component in components}


def _look(ctx: JobContext, probe: Probe) -> Finding:
    try:
        with ctx.connection.begin_nested():
            return probe(ctx)
    except (DBAPIError, ValueError) as error:
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            # It is not the component that broke: nothing more can be asked or recorded.
            raise
        return Finding(Health.FAIL, f"could not be looked at: {type(error).__name__}")


def _database(ctx: JobContext) -> Finding:
    asked_at = ctx.now
    ctx.connection.execute(select(1))
    took = ctx.now - asked_at
    if took > timedelta(milliseconds=ctx.options["slow_ms"]):
        return Finding(Health.WARNING, f"took {took.total_seconds():.1f} s to answer")
    return Finding()


def _schema(ctx: JobContext) -> Finding:
    missing = sorted(metadata.tables.keys() - set(inspect(ctx.connection).get_table_names()))
    return Finding(Health.FAIL, f"lacks {', '.join(missing)}") if missing else Finding()


def _outbox(ctx: JobContext) -> Finding:
    message = outbox.c
    pending = message.status == "pending"
    died = and_(message.status == "dead", message.created_at > ctx.slot - _RECENTLY)
    if _any(ctx, pending, message.not_before < ctx.slot - _TOO_LATE):
        return Finding(Health.FAIL, "a message has been due for more than 24 hours")
    if _any(ctx, pending, message.not_before < ctx.slot - _LATE):
        return Finding(Health.WARNING, "a message has been due for more than 30 minutes")
    if _any(ctx, died):
        return Finding(Health.WARNING, "a message of the last 24 hours was given up")
    return Finding()


def _integrations(ctx: JobContext) -> Finding:
    return _states(ctx, integrations.c.kind != "mailbox")


def _email_sync(ctx: JobContext) -> Finding:
    return _states(ctx, integrations.c.kind == "mailbox")


def _states(ctx: JobContext, condition: ColumnElement[bool]) -> Finding:
    """Judge enabled integrations: some that are not ok are a warning, all of them a failure."""
    states = ctx.connection.scalars(
        select(integrations.c.state).where(integrations.c.enabled.is_(True), condition)
    ).all()
    bad = sum(state != "ok" for state in states)
    if not bad:
        return Finding()
    health = Health.FAIL if bad == len(states) else Health.WARNING
    return Finding(health, f"{bad} of {len(states)} not ok")


def _backups(ctx: JobContext) -> Finding:
    """Judge each component by its latest verification; the worst of them counts."""
    found = [_verification(ctx, row) for row in ctx.connection.execute(_latest_verifications())]
    return max(found, default=Finding())


def _latest_verifications() -> Select[Any]:
    newest = (
        select(backups.c.component, func.max(backups.c.verified_at).label("verified_at"))
        .group_by(backups.c.component)
        .subquery()
    )
    same = and_(
        backups.c.component == newest.c.component, backups.c.verified_at == newest.c.verified_at
    )
    return select(newest, backups.c.verify_status).outerjoin(backups, same)


def _verification(ctx: JobContext, row: Row[Any]) -> Finding:
    if row.verified_at is None:
        return Finding(Health.WARNING, f"{row.component} was never verified")
    if row.verify_status in BROKEN_BACKUP:
        return Finding(Health.FAIL, f"{row.component} is {row.verify_status}")
    if ctx.slot - row.verified_at > _VERIFIED_WITHIN:
        return Finding(Health.WARNING, f"{row.component} was last verified too long ago")
    return Finding()


def _jobs(ctx: JobContext) -> Finding:
    failing = job_items.c.state == "error"
    if _any(ctx, failing, job_items.c.attempts >= _MANY_ATTEMPTS):
        return Finding(Health.WARNING, f"an item of a job has failed {_MANY_ATTEMPTS} times")
    return Finding()


def _any(ctx: JobContext, *conditions: ColumnElement[bool]) -> bool:
    return bool(ctx.connection.scalar(select(literal(1)).where(*conditions).limit(1)))


PROBES: Final[Mapping[str, Probe]] = {
    "database": _database,
    "schema": _schema,
    "outbox": _outbox,
    "integrations": _integrations,
    "email_sync": _email_sync,
    "backups": _backups,
    "jobs": _jobs,
}
"""Each component and how it is probed, in the order of a report."""
