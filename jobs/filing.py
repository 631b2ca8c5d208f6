"""Reports of a tenant: one of each kind for each period, kept as it was first written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select

from jobs.schema import reports

if TYPE_CHECKING:
    from cronrunner import JobContext


def is_filed(ctx: JobContext, kind: str, period: str) -> bool:
    """Tell whether there is a report of ``kind`` for ``period``."""
    known = select(reports.c.id).where(reports.c.kind == kind, reports.c.period_key == period)
    return ctx.connection.scalar(known) is not None


def file_report(
    ctx: JobContext, kind: str, period: str, summary: Mapping[str, Any], body: str
) -> None:
    """Keep a report, as of the slot."""
    report = {
        "kind": kind,
        "period_key": period,
        "slot": ctx.slot,
        "summary": dict(summary),
        "body": body,
        "created_at": ctx.slot,
    }
    ctx.connection.execute(insert(reports).values(report))
