"""The ledger's read side: history, statistics, what metrics are made of. Never writes."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from sys import intern
from typing import Any, Final

from sqlalchemy import Connection, Engine, Row, false, func, select

from cronrunner.ledger import pausing
from cronrunner.ledger.history import (
    PAGE,
    Document,
    ExecutionFilter,
    execution_document,
    read_executions,
)
from cronrunner.ledger.rows import selection_text
from cronrunner.ledger.tables import (
    claims,
    counters,
    durations,
    executions,
    prepared,
    runs,
    seen_jobs,
    statistics,
    tenants,
)
from cronrunner.model import (
    DURATION_BUCKETS,
    FLEET,
    ExitCode,
    LedgerSnapshot,
    Outcome,
    Pair,
    Pause,
    Run,
    RunSummary,
    Slot,
    Statistics,
)

#: In `runs.selection` of a dry run. A quote within a name would be escaped.
_DRY: Final = '"dry_run": true'
_OUTCOMES: Final = tuple(Outcome)
#: The columns of statistics behind job, tenant, the outcomes, and the last outcome.
_OTHERS: Final = tuple(statistics.columns.keys())[3 + len(_OUTCOMES) :]
#: What plans are made of.
_OF_PAIRS: Final = tuple(statistics.c[name] for name in Pair._fields)


class Queries:
    """Questions to the ledger. Thread-safe: each takes a connection while it is read.

    What is streamed is read in pages, and takes no connection between two of them: who asks
    may take any time, and ask something else.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def runs(self, limit: int) -> list[Document]:
        """Return the newest runs, newest first."""
        query = select(runs).order_by(runs.c.started_at.desc(), runs.c.run.desc()).limit(limit)
        with self._engine.connect() as connection:
            return [_run_document(row) for row in connection.execute(query)]

    def find_runs(self, name: str, *, with_work: bool = False) -> Sequence[Document]:
        """Return the runs whose ids begin with ``name``, two at the most; the one if it is an id.

        ``last`` is the newest real one; ``with_work`` the newest of them that did not end with
        everything done or held by others before it began.
        """
        query = select(runs).order_by(runs.c.started_at.desc(), runs.c.run.desc()).limit(2)
        if name == "last":
            # Dry runs, and those refused for their command line, have done nothing that could be
            # shown, resumed or repeated.
            refused = runs.c.exit_code.is_not_distinct_from(ExitCode.USAGE)
            query = query.where(runs.c.selection.not_like(f"%{_DRY}%"), ~refused)
            if with_work:
                ended = runs.c.exit_code.in_((ExitCode.OK, ExitCode.NOT_WELL, ExitCode.HELD))
                query = query.where(~func.coalesce(ended & (runs.c.outcomes == "{}"), false()))
        else:
            query = query.where(runs.c.run.startswith(name, autoescape=True))
        with self._engine.connect() as connection:
            found = connection.execute(query).all()
        exact = [row for row in found if row.run == name]
        chosen = found[:1] if name == "last" else exact or found
        return [_run_document(row) for row in chosen]

    def drained_since(self, selection: Mapping[str, Any]) -> datetime | None:
        """Return when the last completed run of ``selection`` began, if it was drained."""
        same = runs.c.selection == selection_text(selection)
        query = select(runs.c.started_at, runs.c.exit_code).where(
            same, runs.c.exit_code.isnot(None)
        )
        with self._engine.connect() as connection:
            last = connection.execute(query.order_by(runs.c.started_at.desc()).limit(1)).first()
        return last.started_at if last and last.exit_code == ExitCode.DRAINED else None

    def executions(self, wanted: ExecutionFilter) -> Iterator[Document]:
        """Stream executions, newest first; those of one run in the order they were recorded."""
        return read_executions(self._engine, wanted)

    def in_flight(self, run: str) -> list[Document]:
        """Return what a run holds and has not finished."""
        open_claims = (claims.c.run == run, claims.c.state == "open")
        query = select(claims).where(*open_claims).order_by(claims.c.claimed_at, claims.c.tenant)
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def outcomes_of_slot(self, job: str, slot_key: str) -> Mapping[str, tuple[str, str]]:
        """Return tenant -> (claim state, outcome) of a job's slot."""
        mine = (claims.c.job == job, claims.c.slot_key == slot_key)
        query = select(claims.c.tenant, claims.c.state, claims.c.outcome).where(*mine)
        with self._engine.connect() as connection:
            return {row.tenant: (row.state, row.outcome) for row in connection.execute(query)}

    def closed_claims(self, job: str, slot_key: str) -> Mapping[str, tuple[str, str]]:
        """Return tenant -> (run, outcome) of what is done of a job's slot."""
        mine = (claims.c.job == job, claims.c.slot_key == slot_key, claims.c.state == "closed")
        query = select(claims.c.tenant, claims.c.run, claims.c.outcome).where(*mine)
        with self._engine.connect() as connection:
            return {row.tenant: (row.run, row.outcome) for row in connection.execute(query)}

    def executions_of_slot(self, job: str, slot_key: str) -> Iterator[Document]:
        """Stream the last execution of each tenant for a job's slot, by tenant.

        A later run of the slot may have left out, unclaimed, a tenant that was done already.
        """
        of_slot = (executions.c.job == job, executions.c.slot_key == slot_key)
        done = (executions.c.fence > 0) | (executions.c.outcome != Outcome.SKIPPED.value)
        mine = (*of_slot, done)
        newest = select(func.max(executions.c.id)).where(*mine).group_by(executions.c.tenant)
        with self._engine.connect() as connection:
            ids = connection.execute(newest.order_by(executions.c.tenant)).scalars().all()
        for start in range(0, len(ids), PAGE):
            page = executions.c.id.in_(ids[start : start + PAGE])
            query = select(executions).where(page).order_by(executions.c.tenant)
            with self._engine.connect() as connection:
                rows = connection.execute(query).all()
            yield from map(execution_document, rows)

    def prepared(self, job: str, slot_key: str) -> str | None:
        """Return what a ``prepare`` of this slot returned, as JSON."""
        mine = (prepared.c.job == job, prepared.c.slot_key == slot_key)
        with self._engine.connect() as connection:
            found: str | None = connection.execute(
                select(prepared.c.value).where(*mine)
            ).scalar_one_or_none()
        return found

    def accepted_tenants(self) -> Mapping[str, frozenset[str]]:
        """Return server -> tenant names of the last accepted discovery."""
        found: defaultdict[str, set[str]] = defaultdict(set)
        with self._engine.connect() as connection:
            for row in connection.execute(select(tenants.c.server, tenants.c.tenant)):
                found[row.server].add(row.tenant)
        return {server: frozenset(names) for server, names in found.items()}

    def accepted_tenants_of(self, server: str) -> frozenset[str]:
        """Return the tenant names of a server's last accepted discovery."""
        query = select(tenants.c.tenant).where(tenants.c.server == server)
        with self._engine.connect() as connection:
            return frozenset(connection.execute(query).scalars())

    def tenants_seen(self) -> Mapping[str, datetime]:
        """Return when each tenant of the last accepted discovery was first seen."""
        query = select(tenants.c.tenant, tenants.c.first_seen_at)
        with self._engine.connect() as connection:
            return {row.tenant: row.first_seen_at for row in connection.execute(query)}

    def jobs_seen(self) -> Mapping[str, datetime]:
        """Return when each job was first seen by ``due``."""
        with self._engine.connect() as connection:
            found = connection.execute(select(seen_jobs))
            return {row.job: row.first_seen_at for row in found}

    def newest_closed_slots(self) -> Mapping[tuple[str, str], datetime]:
        """Return (job, tenant) -> the newest scheduled slot that is closed."""
        newest = func.max(claims.c.slot_key).label("newest")
        # The keys of scheduled slots sort as their times do; others begin with a letter.
        scheduled = (claims.c.state == "closed", claims.c.slot_key < "a")
        query = select(claims.c.job, claims.c.tenant, newest).where(*scheduled)
        with self._engine.connect() as connection:
            rows = connection.execute(query.group_by(claims.c.job, claims.c.tenant))
            return {(row.job, row.tenant): datetime.fromisoformat(row.newest) for row in rows}

    def slots_of_run(self, run: str) -> Mapping[tuple[str, str], Slot]:
        """Return (job, tenant) -> the slot that it had in a run, as far as the run came."""
        columns = (executions.c.job, executions.c.tenant, executions.c.slot, executions.c.slot_key)
        with self._engine.connect() as connection:
            rows = connection.execute(select(*columns).where(executions.c.run == run))
            return {(row.job, row.tenant): Slot(at=row.slot, key=row.slot_key) for row in rows}

    def statistics(self) -> Mapping[tuple[str, str], Statistics]:
        """Return what is remembered of every (job, tenant) pair."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(statistics))
            return {(row[0], row[1]): _statistics(row) for row in rows}

    def pairs(
        self, jobs: Collection[str] | None = None, tenants: Collection[str] | None = None
    ) -> Mapping[tuple[str, str], Pair]:
        """Return what plans are made of: of all (job, tenant) pairs, unless some are named."""
        query = select(*_OF_PAIRS)
        if jobs is not None:
            query = query.where(statistics.c.job.in_(jobs))
        if tenants is not None and len(tenants) <= PAGE:
            query = query.where(statistics.c.tenant.in_(tenants))
        with self._engine.connect() as connection:
            pairs = map(_pair, connection.execute(query))
            return {(pair.job, pair.tenant): pair for pair in pairs}

    def pauses(self, now: datetime) -> Sequence[Pause]:
        """Return the pauses in force, by job, tenant and server."""
        with self._engine.connect() as connection:
            return pausing.in_force(connection, now)

    def snapshot(self, clock: Callable[[], datetime]) -> LedgerSnapshot:
        """Read all that metrics are made of."""
        now = clock()
        with self._engine.connect() as connection:
            number = func.count().label("number")
            per_server = select(tenants.c.server, number).group_by(tenants.c.server)
            return LedgerSnapshot(
                taken_at=now,
                statistics=_known_statistics(connection),
                job_totals=_job_totals(connection),
                durations=_durations(connection),
                last_completed=_last_fleet_run(connection, succeeded=False),
                last_succeeded=_last_fleet_run(connection, succeeded=True),
                tenants={row.server: row.number for row in connection.execute(per_server)},
                counters={
                    (row.name, row.label): row.value for row in connection.execute(select(counters))
                },
                pauses=len(pausing.in_force(connection, now)),
            )


def _pair(row: Sequence[Any]) -> Pair:
    job, tenant, run_at, success_at, *rest = row
    # Of most pairs the last run was a success.
    success_at = run_at if success_at == run_at else success_at
    return Pair(intern(job), tenant, run_at, success_at, *rest)


def _run_document(row: Row[Any]) -> Document:
    document = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
    for name in ("selection", "discovered", "outcomes"):
        document[name] = json.loads(document[name]) if document[name] else {}
    document["errors"] = json.loads(row.errors) if row.errors else []
    finished = row.finished_at or row.heartbeat_at
    document["duration_seconds"] = (finished - row.started_at).total_seconds()
    return document


def _statistics(row: Sequence[Any]) -> Statistics:
    """Make a row of the table into what it means, by the places of its columns.

    By their names it takes twice as long, and metrics are made of as many as there are pairs.
    """
    job, tenant, *counts = row[: 2 + len(_OUTCOMES)]
    last_outcome, *others = row[2 + len(_OUTCOMES) :]
    return Statistics(
        job=job,
        tenant=tenant,
        totals=dict(zip(_OUTCOMES, counts, strict=True)),
        last_outcome=Outcome(last_outcome) if last_outcome else None,
        **dict(zip(_OTHERS, others, strict=True)),
    )


def _known_statistics(connection: Connection) -> Sequence[Statistics]:
    """Leave out the tenants that the last accepted discovery does not know any more."""
    known = select(tenants.c.tenant)
    of_known = statistics.c.tenant.in_(known) | (statistics.c.tenant == FLEET)
    return [_statistics(row) for row in connection.execute(select(statistics).where(of_known))]


def _job_totals(connection: Connection) -> Mapping[tuple[str, str], int]:
    sums = [func.sum(statistics.c[each.value]).label(each.value) for each in Outcome]
    query = select(statistics.c.job, *sums).group_by(statistics.c.job)
    return {
        (row.job, each.value): int(row._mapping[each.value])  # noqa: SLF001 - public name
        for row in connection.execute(query)
        for each in Outcome
    }


def _durations(connection: Connection) -> Mapping[str, tuple[Sequence[int], float]]:
    counts: defaultdict[str, list[int]] = defaultdict(lambda: [0] * (len(DURATION_BUCKETS) + 1))
    seconds: defaultdict[str, float] = defaultdict(float)
    for row in connection.execute(select(durations)):
        counts[row.job][row.bucket] = int(row.executions)
        seconds[row.job] += row.seconds
    return {job: (of_job, seconds[job]) for job, of_job in counts.items()}


def _last_fleet_run(connection: Connection, *, succeeded: bool) -> RunSummary | None:
    query = select(runs).where(runs.c.fleet, runs.c.exit_code.isnot(None))
    if succeeded:
        query = query.where(runs.c.exit_code == 0)
    row = connection.execute(query.order_by(runs.c.finished_at.desc()).limit(1)).one_or_none()
    if row is None:
        return None
    return RunSummary(
        run=Run(
            id=row.run,
            command=row.command,
            started_at=row.started_at,
            scheduled_at=row.scheduled_at,
            host=row.host,
            boot=row.boot,
            pid=row.pid,
            pid_started=row.pid_started,
            slot=Slot(at=row.slot, key=row.slot_key),
        ),
        finished_at=row.finished_at,
        exit_code=row.exit_code,
        duration_seconds=(row.finished_at - row.started_at).total_seconds(),
    )
