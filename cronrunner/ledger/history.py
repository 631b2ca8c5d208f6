"""Reading executions: those of a run in their order, or of all runs, the newest first.

However long history is, what is asked for is found by an index. Each has a part that must be
equal and is in the order of time behind that: all of it, a tenant's, or a job's with one outcome.
What is asked for is parted into such branches (a job's eight outcomes, the tenants that a glob
matches), each of which is read a page at a time, and they are merged. Other conditions filter.
"""

from __future__ import annotations

import heapq
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import translate
from itertools import islice, product, takewhile
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Connection, Engine, Row, Select, func, select

from cronrunner.ledger.tables import executions
from cronrunner.model import Outcome

#: Rows read at a time where a result may be as long as the fleet.
PAGE: Final = 2000
#: Matching tenants up to which each is looked up. So many of more are soon met in order of time.
_TENANTS: Final = 200
#: Branches up to which they are merged.
_BRANCHES: Final = 2000
#: Behind every name that begins alike.
_LAST: Final = "\U0010ffff"
_GLOB: Final = re.compile(r"[*?\[]")

Document = dict[str, Any]
Condition = ColumnElement[bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionFilter:
    """Which executions of history are wanted; globs for names, empty means all."""

    run: str | None = None
    job: str | None = None
    tenant: str | None = None
    outcomes: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    limit: int | None = None


def read_executions(engine: Engine, wanted: ExecutionFilter) -> Iterator[Document]:
    """Stream executions, newest first; those of one run in the order they were recorded.

    No connection is taken between two pages: who asks may take any time.
    """
    ids = _ids_of_run(engine, wanted) if wanted.run is not None else _ids_by_time(engine, wanted)
    ids = islice(ids, wanted.limit)
    while page := list(islice(ids, PAGE)):
        query = select(executions).where(executions.c.id.in_(page))
        with engine.connect() as connection:
            rows = {row.id: row for row in connection.execute(query)}
        # What was pruned meanwhile is not there.
        yield from (execution_document(rows[each]) for each in page if each in rows)


def _ids_of_run(engine: Engine, wanted: ExecutionFilter) -> Iterator[int]:
    """Read all ids of a run at once, from an index alone: they are in no order there."""
    query = select(executions.c.id).where(executions.c.run == wanted.run, *_filters(wanted))
    with engine.connect() as connection:
        return iter(sorted(connection.execute(query).scalars()))


def _filters(wanted: ExecutionFilter) -> Iterator[Condition]:
    """Give the conditions that no index is to be chosen for."""
    for column, pattern in ((executions.c.job, wanted.job), (executions.c.tenant, wanted.tenant)):
        if pattern is not None:
            yield _matches(_plain(column), pattern)
    if wanted.outcomes:
        yield _plain(executions.c.outcome).in_(wanted.outcomes)
    if wanted.since is not None:
        yield executions.c.started_at >= wanted.since
    if wanted.until is not None:
        yield executions.c.started_at < wanted.until


def _plain(column: Column[str]) -> ColumnElement[str]:
    """Return the value of a column that is never NULL, without the index that the column has."""
    return func.coalesce(column, "")


def _matches(value: ColumnElement[str], pattern: str) -> Condition:
    """Compare with a glob. Not LIKE: it folds case on SQLite, and has no character sets."""
    if not _GLOB.search(pattern):
        return value == pattern
    return value.regexp_match(r"\A" + translate(pattern)) | (value == pattern)


def _ids_by_time(engine: Engine, wanted: ExecutionFilter) -> Iterator[int]:
    with engine.connect() as connection:
        branches = list(_branches(connection, wanted))
    filters = list(_filters(wanted))
    size = PAGE if wanted.limit is None else min(wanted.limit, PAGE)
    newest = (_Branch(engine, [*lead, *filters], size) for lead in branches)
    rows = heapq.merge(*newest, key=lambda row: (row.started_at, row.id), reverse=True)
    return (row.id for row in rows)


def _branches(connection: Connection, wanted: ExecutionFilter) -> Iterable[Sequence[Condition]]:
    """Return what must be equal in each branch."""
    if wanted.tenant is not None:
        tenants = _names(connection, executions.c.tenant, wanted.tenant)
        if len(tenants) <= _TENANTS:
            return [(executions.c.tenant == name,) for name in tenants]
    if wanted.job is None and not wanted.outcomes:
        return [()]
    jobs = _names(connection, executions.c.job, wanted.job or "*")
    outcomes = wanted.outcomes or [each.value for each in Outcome]
    if len(jobs) * len(outcomes) > _BRANCHES:
        return [()]
    return [
        (executions.c.job == job, executions.c.outcome == outcome)
        for job, outcome in product(jobs, outcomes)
    ]


def _names(connection: Connection, column: Column[str], pattern: str) -> list[str]:
    """Return the names that there are in a column, and match; one that is no glob may not be."""
    found = _GLOB.search(pattern)
    if found is None:
        return [pattern]
    prefix = pattern[: found.start()]
    regex = re.compile(translate(pattern))
    names = connection.execute(_distinct(connection, column, prefix)).scalars()
    near = takewhile(lambda name: name.startswith(prefix), names)
    return [name for name in near if regex.match(name) or name == pattern]


def _distinct(connection: Connection, column: Column[str], prefix: str) -> Select[Any]:
    """Find the different values of an indexed column from ``prefix`` on, by a look for each."""
    if connection.dialect.name != "sqlite":
        # The server sees by itself that it need not read them all.
        near = (column >= prefix) & (column <= prefix + _LAST)
        return select(column).where(near).distinct().order_by(column)
    first = select(func.min(column).label("name")).where(column >= prefix).cte(recursive=True)
    next_ = select(func.min(column)).where(column > first.c.name).scalar_subquery()
    names = first.union_all(select(next_).where(first.c.name <= prefix + _LAST))
    return select(names.c.name).where(names.c.name.isnot(None))


class _Branch:
    """The ids and times of a branch, newest first, read a page at a time."""

    def __init__(self, engine: Engine, conditions: Sequence[Condition], size: int) -> None:
        newest = (executions.c.started_at.desc(), executions.c.id.desc())
        columns = (executions.c.id, executions.c.started_at)
        self._query = select(*columns).where(*conditions).order_by(*newest).limit(size)
        self._engine = engine
        self._size = size

    def __iter__(self) -> Iterator[Any]:
        """Read on as far as somebody wants to know."""
        query = self._query
        while True:
            with self._engine.connect() as connection:
                rows = connection.execute(query).all()
            yield from rows
            if len(rows) < self._size:
                return
            query = self._query.where(_behind(rows[-1]))


def _behind(row: Any) -> Condition:  # noqa: ANN401 - a row of a branch
    """Select what comes after ``row``; the first condition is the one for the index."""
    at = executions.c.started_at
    earlier: Condition = (at < row.started_at) | (executions.c.id < row.id)
    behind: Condition = (at <= row.started_at) & earlier
    return behind


def execution_document(row: Row[Any]) -> Document:
    """Return an execution as it is told to whoever asks."""
    document = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
    document["counters"] = json.loads(row.counters) if row.counters else {}
    return document
