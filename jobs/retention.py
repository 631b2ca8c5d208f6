"""What is old goes: to the archive, or away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, Row, delete, insert, select

from cronrunner import Option, Retry, job
from jobs.legal_hold import respect_legal_hold
from jobs.policies import (
    SOURCES,
    Action,
    Policy,
    Source,
    as_json,
    cutoff,
    read_deletion,
    read_policy,
)
from jobs.schema import archived_records

if TYPE_CHECKING:
    from cronrunner import JobContext

#: Rows in memory at a time: the text of a report may have a megabyte.
_COPIED_AT_ONCE: Final = 50


@job(
    schedule="0 5 * * 0",
    retries=2,
    timeout="30m",
    transaction="batch",
    options={
        "notifications": Option("delete after 180d", check=read_policy, help="read or queued ones"),
        "outbox": Option(
            "delete after 90d", check=read_policy, help="messages sent, dead or cancelled"
        ),
        "reports": Option("archive after 730d", check=read_policy, help="reports of any kind"),
        "archived_records": Option(
            "delete after 2555d", check=read_deletion, help="the archive, since a row came there"
        ),
        "job_items": Option("delete after 400d", check=read_policy, help="marks of done items"),
        "audit_log": Option(
            "keep", check=read_policy, help="entries; retention.archive_audit_log archives them"
        ),
    },
)
def apply_policies(ctx: JobContext) -> Mapping[str, int]:
    """Delete or archive rows that are older than the policy of their table allows.

    Each option is the policy of the table that it is called like: `delete after 180d`,
    `archive after 730d`, or `keep`; no other table is touched. A day is 24 hours before the slot,
    and a row that is exactly as old as its policy says stays. Of some tables only rows that are
    finished go: notifications that are not `new`, messages that are `sent`, `dead` or `cancelled`,
    items that are `done`. An archived row is copied into `archived_records` as JSON and deleted
    in the same transaction, 500 rows at a time. A tenant labelled `legal_hold: "true"` is skipped.

    Counters:
      archived: rows that were copied into the archive and deleted
      deleted: rows that were deleted without a copy
      already: rows whose copy was in the archive before; they are deleted
      batches: transactions in which there was something to do
      errors: items that could not be done; always 0

    From: OpsDeck: data retention
    """
    respect_legal_hold(ctx)
    counters = _none()
    for name in SOURCES:
        policy = read_policy(ctx.options[name])
        if policy is not None:
            _apply(ctx, name, policy, counters)
    return counters


@job(
    schedule="0 0 1 * *",
    retries=2,
    timeout="30m",
    transaction="batch",
    options={
        "keep_days": Option(
            365, minimum=1, maximum=99_999, help="days for which an entry stays in the audit log"
        )
    },
)
def archive_audit_log(ctx: JobContext) -> Mapping[str, int]:
    """Move old entries of the audit log into the archive.

    An entry that is older than `keep_days` days of 24 hours before the slot is copied into
    `archived_records`, as JSON with dates in ISO 8601, and deleted in the same transaction, 500
    entries at a time. One that is exactly as old stays. A tenant labelled `legal_hold: "true"` is
    skipped.

    Counters:
      archived: entries that were copied into the archive and deleted
      deleted: entries that were deleted without a copy; always 0
      already: entries whose copy was in the archive before; they are deleted
      batches: transactions in which there was something to do
      errors: items that could not be done; always 0

    From: Risk Legion: audit log archive
    """
    respect_legal_hold(ctx)
    counters = _none()
    _apply(ctx, "audit_log", Policy(Action.ARCHIVE, ctx.options["keep_days"]), counters)
    return counters


def _none() -> dict[str, int]:
    return {"archived": 0, "deleted": 0, "already": 0, "batches": 0, "errors": 0}


def _apply(ctx: JobContext, name: str, policy: Policy, counters: dict[str, int]) -> None:
    source = SOURCES[name]
    older = source.older(cutoff(ctx.slot, policy.keep_days))
    for ids in ctx.batches(source.table.c.id, where=older, name=name):
        counters["batches"] += 1
        if policy.action is Action.ARCHIVE:
            for part in _parts(ids):
                _archive(ctx, source, older, part, counters)
        else:
            counters["deleted"] += _delete(ctx, source, older, ids)


def _archive(
    ctx: JobContext,
    source: Source,
    older: ColumnElement[bool],
    ids: Sequence[int],
    counters: dict[str, int],
) -> None:
    table = source.table
    rows = ctx.connection.execute(select(table).where(table.c.id.in_(ids), older)).all()
    known = _archived(ctx, source, ids)
    copies = [_copy(ctx, source, row) for row in rows if row.id not in known]
    if copies:
        ctx.connection.execute(insert(archived_records), copies)
    if _delete(ctx, source, older, ids) != len(rows):
        raise Retry("rows were changed while they were archived")
    counters["archived"] += len(copies)
    counters["already"] += len(rows) - len(copies)


def _archived(ctx: JobContext, source: Source, ids: Sequence[int]) -> set[int]:
    copy = archived_records.c
    found = select(copy.source_id).where(
        copy.source_table == source.table.name, copy.source_id.in_(ids)
    )
    return set(ctx.connection.scalars(found))


def _copy(ctx: JobContext, source: Source, row: Row[Any]) -> dict[str, Any]:
    values = row._mapping  # noqa: SLF001 - SQLAlchemy's public name for it
    return {
        "source_table": source.table.name,
        "source_id": row.id,
        "record_at": values[source.at.name],
        "data": {name: as_json(value) for name, value in values.items()},
        "archived_at": ctx.slot,
    }


def _delete(ctx: JobContext, source: Source, older: ColumnElement[bool], ids: Sequence[int]) -> int:
    found = delete(source.table).where(source.table.c.id.in_(ids), older)
    return ctx.connection.execute(found).rowcount


def _parts(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(ids), _COPIED_AT_ONCE):
        yield ids[start : start + _COPIED_AT_ONCE]
