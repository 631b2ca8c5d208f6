"""A tenant for one test: its rows, and a way to run a job on it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import Connection, MetaData, Table, inspect, select, text

from cronrunner.context import JobContext
from cronrunner.execution import Work
from cronrunner.model import EMPTY, FLEET_TENANT, Job, Tenant
from cronrunner.planning import nearest
from cronrunner.testing.finding import Jobs
from cronrunner.testing.fleet import FleetDatabase
from cronrunner.testing.places import Place
from cronrunner.testing.scene import BY_JOB, SLOT, Scene
from cronrunner.testing.stage import Attempted, LogLine

Row = dict[str, Any]
JobName = str | Callable[..., Any]


class ThrowawayTenant:
    """One tenant in a database of its own, which nobody needs after the test."""

    def __init__(
        self, place: Place, database: str, jobs: Jobs, *, tables: MetaData, name: str
    ) -> None:
        self._place = place
        self._database = database
        self._jobs = jobs
        self._tables = tables
        self._name = name
        #: An engine for the test itself; jobs have the one of their visit.
        self.engine = place.stage.engine(database)
        #: What the jobs have logged so far: ``event``, ``log_level``, and each line's fields.
        self.log: list[LogLine] = []

        #: What jobs write for the fleet: ``fleet.messages()``, and ``fleet.engine``.
        self.fleet = FleetDatabase()

    def close(self) -> None:
        """Close what the test has opened. Called by the fixture."""
        self.fleet.close()

    # Rows.

    def add(self, table: Table | str, *rows: Mapping[str, Any]) -> None:
        """Insert rows; what only some of them say is NULL in the others.

        Raises ``LookupError`` for a column that the table has not.
        """
        names = list(dict.fromkeys(name for row in rows for name in row))
        complete = [{name: row.get(name) for name in names} for row in rows]
        if complete:
            known = self._table(table)
            _refuse_unknown(known, names)
            with self.engine.begin() as connection:
                connection.execute(known.insert(), complete)

    def rows(self, table: Table | str) -> list[Row]:
        """Return all rows, by primary key."""
        with self.engine.connect() as connection:
            return _rows(connection, self._table(table))

    def content(self) -> dict[str, list[Row]]:
        """Return every row of every table: equal before and after when nothing was written."""
        with self.engine.connect() as connection:
            names = inspect(connection).get_table_names()
            return {name: _rows(connection, self._table(name)) for name in names}

    def execute(self, statement: str, **values: object) -> None:
        """Execute and commit one statement of SQL text."""
        with self.engine.begin() as connection:
            connection.execute(text(statement), values)

    def _table(self, table: Table | str) -> Table:
        if isinstance(table, Table):
            return table
        known = self._tables.tables.get(table)
        return Table(table, MetaData(), autoload_with=self.engine) if known is None else known

    # Jobs.

    def run(  # noqa: PLR0913 - all that a test may say of an attempt
        self,
        job: JobName,
        *,
        slot: datetime = SLOT,
        zone: str = "UTC",
        labels: Mapping[str, str] = EMPTY,
        clock: datetime | Callable[[], datetime] | None = None,
        prepared: Any = BY_JOB,
        app: Any = None,
        options: Mapping[str, Any] = EMPTY,
        **more_options: Any,
    ) -> dict[str, int]:
        """Run a job by its name, or a function, and return its counters.

        Raises what the job raises, ``DeadlineError`` when its timeout expires, and what its
        commit raises. ``clock`` is an instant at which time stands still (7 minutes after the slot
        unless the test says otherwise) or a function. What the job's ``prepare`` returns is
        ``prepared`` unless the test gives it; ``app`` is what the start-up hook would return. Every
        other keyword is an option of the job.
        """
        __tracebackhide__ = True
        attempted = self.attempt(
            job,
            slot=slot,
            zone=zone,
            labels=labels,
            clock=clock,
            prepared=prepared,
            app=app,
            options={**options, **more_options},
        )
        attempted.refuse_unwell()
        return dict(attempted.counters)

    def attempt(self, job: JobName, **given: Any) -> Attempted:
        """Run a job as ``run`` does, and return how it ended, whatever it raised.

        With ``dry_run=True`` it is rolled back. Raises what its ``prepare`` raises.
        """
        scene, found = Scene.of(given), self._jobs.find(job)
        tenant = scene.tenant(found, self._name, self._database)
        prepared = self._prepared(found, scene)
        return self._perform(found, scene, tenant, found.name, found.call, prepared=prepared)

    def prepare(self, job: JobName, **given: Any) -> Any:
        """Call the job's ``prepare`` and return what it prepares, as each tenant gets it."""
        return self._prepare(self._jobs.find(job), Scene.of(given))

    def summarize(self, job: JobName, *results: Mapping[str, Any], **given: Any) -> dict[str, int]:
        """Call the job's ``summarize`` with these ``ctx.results()``, and return its counters.

        Each is a mapping with ``tenant``, ``outcome`` and ``counters``; those that say nothing of
        it have ``succeeded``.
        """
        scene, found = Scene.of(given), self._jobs.find(job)
        if found.summarize is None:
            raise LookupError(f"expected {found.name} to have a summarize, found none")
        rows = [{"outcome": "succeeded", "reason": None, "counters": {}, **row} for row in results]
        ended = self._perform(
            found,
            scene,
            FLEET_TENANT,
            found.summarize_name,
            found.summarize,
            prepared=None if scene.prepared is BY_JOB else scene.prepared,
            results=lambda: iter(rows),
        )
        ended.refuse_unwell()
        return dict(ended.counters)

    def _prepared(self, job: Job, scene: Scene) -> Any:
        if scene.prepared is BY_JOB:
            return self._prepare(job, scene)
        # As it comes back from the ledger: tuples are lists, keys are texts.
        return json.loads(json.dumps(scene.prepared))

    def _prepare(self, job: Job, scene: Scene) -> Any:
        if job.prepare is None:
            return None
        ended = self._perform(
            job, scene, FLEET_TENANT, job.prepare_name, job.prepare, keeps_value=True
        )
        ended.refuse_unwell()
        return json.loads(ended.result.value or "null")

    def _perform(
        self,
        job: Job,
        scene: Scene,
        tenant: Tenant,
        name: str,
        call: Callable[[Any], Any],
        **work: Any,
    ) -> Attempted:
        ended = self._place.stage.perform(
            scene.request(name, tenant),
            tenant,
            Work(job=job, call=call, options=scene.values(job), **work),
            scene.now(),
            app=scene.app,
            shared=self.fleet.shared,
        )
        self.log.extend(ended.log)
        return ended

    @contextmanager
    def context(self, job: JobName, **given: Any) -> Iterator[JobContext]:
        """Give the context of one attempt, to call with it what is less than a job.

        What is done is committed at the end, and rolled back on an exception.
        """
        scene, found = Scene.of(given), self._jobs.find(job)
        tenant = scene.tenant(found, self._name, self._database)
        visit = self._place.stage.engines.visit(tenant)
        now, commit = scene.now(), False
        ctx = JobContext(
            job=found,
            request=scene.request(found.name, tenant),
            tenant=tenant,
            engine=visit.engine,
            log=structlog.get_logger,
            clock=now,
            deadline=now() + found.timeout,
            options=scene.values(found),
            prepared=None if scene.prepared is BY_JOB else scene.prepared,
            shared=self.fleet.shared,
        )
        ctx.app = scene.app
        try:
            yield ctx
            commit = True
        finally:
            ctx.finish(commit=commit)
            visit.close()


def _refuse_unknown(table: Table, names: Iterable[str]) -> None:
    """Raise ``LookupError`` for a name that is no column: SQLAlchemy would leave it out."""
    for name in names:
        if name not in table.columns:
            raise LookupError(
                f"no column {name!r} in {table.name}; {nearest(name, table.columns.keys())}"
            )


def _rows(connection: Connection, table: Table) -> list[Row]:
    found = connection.execute(select(table).order_by(*table.primary_key)).mappings()
    rows = [dict(row) for row in found]
    return rows if len(table.primary_key) else sorted(rows, key=repr)
