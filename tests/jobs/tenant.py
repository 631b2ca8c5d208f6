"""What the tests of jobs stand on: one tenant, its rows, and a way to run a job on it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Engine, Table, select

from cronrunner import JobContext, Tenant
from cronrunner.model import Job, Key, Request, Slot
from cronrunner.registry.finding import find_jobs
from jobs.schema import metadata

FOLDER = Path(__file__).parents[2] / "jobs"
JOBS: Mapping[str, Job] = find_jobs(FOLDER).jobs

#: The slot of a test that names none: midnight UTC, the first of a month, a Sunday.
S = datetime(2026, 3, 1, tzinfo=UTC)
#: When the job runs: late, so that a stamp of the clock is told from one of the slot.
NOW = S + timedelta(minutes=7)


def ago(**parts: float) -> datetime:
    """Return an instant before the slot: `ago(days=1)`."""
    return S - timedelta(**parts)


class TenantDatabase:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def add(self, table: Table, *rows: Mapping[str, Any]) -> None:
        """Insert rows; what they do not say is NULL."""
        names = table.columns.keys() if rows and "id" in rows[0] else table.columns.keys()[1:]
        complete = [{name: row.get(name) for name in names} for row in rows]
        if complete:
            with self.engine.begin() as connection:
                connection.execute(table.insert(), complete)

    def rows(self, table: Table) -> list[dict[str, Any]]:
        """Return all rows by id."""
        with self.engine.connect() as connection:
            found = connection.execute(select(table).order_by(table.c.id)).mappings()
            return [dict(row) for row in found]

    def content(self) -> dict[str, list[dict[str, Any]]]:
        """Return every row of every table: equal before and after when nothing was written."""
        return {name: self.rows(table) for name, table in metadata.tables.items()}

    def run(
        self,
        job: str,
        *,
        slot: datetime = S,
        zone: str = "UTC",
        clock: Callable[[], datetime] = lambda: NOW,
        **options: Any,
    ) -> dict[str, int]:
        """Run a job; its transaction is committed, or rolled back when it raises."""
        with self.context(job, slot=slot, zone=zone, clock=clock, **options) as ctx:
            return dict(JOBS[job].call(ctx))

    @contextmanager
    def context(
        self,
        job: str,
        *,
        slot: datetime = S,
        zone: str = "UTC",
        clock: Callable[[], datetime] = lambda: NOW,
        **options: Any,
    ) -> Iterator[JobContext]:
        """Give the context of one attempt, finished as the runner would."""
        known = JOBS[job].options
        name = "agency_acorn"
        key = Key(job=job, tenant=name, slot_key=Slot.scheduled(slot).key)
        ctx = JobContext(
            job=JOBS[job],
            request=Request(key=key, run="test", slot=slot, attempt=1, fence=1),
            tenant=Tenant(name=name, server="test", database=name, timezone=zone),
            engine=self.engine,
            log=structlog.get_logger(),
            clock=clock,
            deadline=clock() + timedelta(minutes=5),
            options={option: known[option].default for option in known}
            | {option: known[option].read(value) for option, value in options.items()},
        )
        commit = False
        try:
            yield ctx
            commit = True
        finally:
            ctx.finish(commit=commit)
