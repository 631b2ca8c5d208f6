"""The ledger's frequent statements, made once; what differs between databases is here."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Dialect,
    Insert,
    Table,
    bindparam,
    case,
    func,
    insert,
    literal_column,
    select,
)
from sqlalchemy.dialects.mysql import insert as mysql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from cronrunner.ledger.tables import (
    attempts,
    claims,
    counters,
    durations,
    executions,
    seen_jobs,
    statistics,
    tenants,
)
from cronrunner.model import Outcome

#: Weight of the newest duration in the smoothed one: about the last six runs count.
_NEWEST: Final = 0.3

#: The counter whose row is written by whoever decides on claims. It is no metric.
_TURNS: Final = "claims_decided"

#: Columns of `statistics` that are not written with each execution.
_APART: Final = frozenset(
    {"overlaps_in_a_row", "failures_apart", "quarantined_at", "probed_at", "code_digest"}
)
_OF_LAST_RUN: Final = frozenset(
    column.name for column in statistics.columns if column.name.startswith(("last_", "smoothed_"))
)

#: Given the columns of the new row, the assignments for a row that exists.
Assignments = Callable[[Any], Mapping[str, ColumnElement[Any]]]


class Statements:
    """What is executed for every group of executions, in one dialect.

    Those that insert take many rows at a time.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._mysql = dialect.name in {"mysql", "mariadb"}
        #: Inserts a claim unless the row exists.
        self.new_claims = self._upsert(claims, lambda _: {"fence": claims.c.fence}, only_new=True)
        #: The claims of ``tenant_names`` for a job's slot.
        self.find_claims = select(claims).where(
            claims.c.job == bindparam("job"),
            claims.c.slot_key == bindparam("slot_key"),
            claims.c.tenant.in_(bindparam("tenant_names", expanding=True)),
        )
        self.end_claims = self._upsert(claims, _end_claim)
        #: The same for a run whose claims may have been freed, since it was found dead.
        self.end_freed_claims = self._upsert(claims, lambda new: _end_claim(new, freed=True))
        self.new_executions = self._rows(executions, insert(executions))
        self.new_attempts = self._rows(attempts, insert(attempts))
        self.count_run = self._upsert(statistics, _count_run, _APART)
        #: Of a job that did not run there is nothing to say but that.
        self.count_only = self._upsert(statistics, _count_totals, _APART | _OF_LAST_RUN)
        self.count_overlap = self._upsert(
            statistics, _count_overlap, (_APART - {"overlaps_in_a_row"}) | _OF_LAST_RUN
        )
        self.count_durations = self._upsert(durations, _add(durations, "executions", "seconds"))
        #: Inserts a tenant unless another run has just done so.
        self.new_tenants = self._upsert(tenants, lambda _: {"tenant": tenants.c.tenant})
        #: Inserts a job unless it is there.
        self.new_jobs = self._upsert(seen_jobs, lambda _: {"job": seen_jobs.c.job})
        self.count_events = self._upsert(counters, _add(counters, "value"))
        self.keep_states = self._upsert(counters, lambda new: {"value": new["value"]})

    def take_turn(self, connection: Connection) -> None:
        """Let no other claim be decided until this transaction is committed.

        By a row that each writes: a lock that is only read for would hold on one node of a Galera
        cluster alone, and of two writes to a row the second is refused. On SQLite whoever writes
        is alone anyhow.
        """
        if self._mysql:
            self.count_events(connection, [{"name": _TURNS, "label": "", "value": 1}])

    @property
    def counts_new_claims(self) -> bool:
        """Whether ``new_claims`` says how many it has inserted: MySQL counts what it found."""
        return not self._mysql

    def _upsert(
        self,
        table: Table,
        assign: Assignments,
        leave_out: Container[str] = (),
        *,
        only_new: bool = False,
    ) -> Rows:
        statement: Insert
        if self._mysql:
            on_mysql = mysql_insert(table)
            statement = on_mysql.on_duplicate_key_update(list(assign(on_mysql.inserted).items()))
        else:
            on_sqlite = sqlite_insert(table)
            key = list(table.primary_key.columns)
            statement = (
                on_sqlite.on_conflict_do_nothing(index_elements=key)
                if only_new
                else on_sqlite.on_conflict_do_update(
                    index_elements=key, set_=dict(assign(on_sqlite.excluded))
                )
            )
        return self._rows(table, statement, leave_out)

    def _rows(self, table: Table, statement: Insert, leave_out: Container[str] = ()) -> Rows:
        given = [
            column
            for column in table.columns
            if column.autoincrement is not True and column.name not in leave_out
        ]
        return Rows(statement, given, self._dialect)


class Rows:
    """A statement to which rows are given, many at a time, as mappings; what is missing is NULL.

    Compiled once, for the driver to execute: SQLAlchemy goes over each parameter of each row
    every time, which is half of what an outcome costs. PyMySQL makes one statement of many rows.
    """

    def __init__(self, statement: Insert, columns: Sequence[Column[Any]], dialect: Dialect) -> None:
        self._names = [column.name for column in columns]
        self._pick = itemgetter(*self._names)
        self._positional = dialect.positional
        self._text = str(statement.compile(dialect=dialect, column_keys=self._names))
        processors = [each.type.dialect_impl(dialect).bind_processor(dialect) for each in columns]
        self._processors = [(i, each) for i, each in enumerate(processors) if each is not None]

    def __call__(self, connection: Connection, rows: Iterable[Mapping[str, Any]]) -> int:
        """Execute the statement for all of ``rows``; return how many the driver counts."""
        values = [self._values(row) for row in rows]
        return connection.exec_driver_sql(self._text, values).rowcount if values else 0

    def _values(self, row: Mapping[str, Any]) -> Any:  # noqa: ANN401 - as the driver wants it
        try:
            values = list(self._pick(row))
        except KeyError:
            values = [row.get(name) for name in self._names]
        for position, process in self._processors:
            values[position] = process(values[position])
        return tuple(values) if self._positional else dict(zip(self._names, values, strict=True))


def _end_claim(
    new: Any,  # noqa: ANN401 - a column collection
    *,
    freed: bool = False,
) -> Mapping[str, ColumnElement[Any]]:
    """End a claim, if it is still held under the same fence by the run that ends it.

    ``run`` comes last: MySQL assigns from left to right and would compare with the new one.
    """
    held = claims.c.run == new.run
    if freed:
        held |= claims.c.run == _constant("")
    mine = held & (claims.c.fence == new.fence)
    end = {
        name: case((mine, new[name]), else_=claims.c[name])
        for name in ("state", "outcome", "closed_at")
    }
    # A stuck thread may still be at work: its claim is free when its run has ended.
    is_stuck = new.outcome == _constant(Outcome.STUCK.value)
    left = mine & (new.state == _constant("open")) & ~is_stuck
    holder = case((left, _constant("")), (mine, new.run), else_=claims.c.run)
    return {**end, "run": holder}


def _count_totals(new: Any) -> Mapping[str, ColumnElement[Any]]:  # noqa: ANN401
    return {each.value: statistics.c[each.value] + new[each.value] for each in Outcome}


def _count_overlap(new: Any) -> Mapping[str, ColumnElement[Any]]:  # noqa: ANN401
    in_a_row = statistics.c.overlaps_in_a_row + new.overlaps_in_a_row
    return {**_count_totals(new), "overlaps_in_a_row": in_a_row}


def _count_run(new: Any) -> Mapping[str, ColumnElement[Any]]:  # noqa: ANN401
    """Fold one execution into the statistics of its pair.

    The last success only moves forward: not on a failure, and not when a clock steps back.
    """
    old = statistics.c
    later = old.last_success_at.is_(None) | (new.last_success_at > old.last_success_at)
    smoothed = func.coalesce(
        old.smoothed_seconds * _constant(1 - _NEWEST) + new.smoothed_seconds * _constant(_NEWEST),
        new.smoothed_seconds,
    )
    return {
        **_count_totals(new),
        "last_outcome": new.last_outcome,
        "last_run_at": new.last_run_at,
        "last_success_at": case(
            (new.last_success_at.isnot(None) & later, new.last_success_at),
            else_=old.last_success_at,
        ),
        "last_duration_seconds": new.last_duration_seconds,
        "consecutive_failures": case(
            (new.consecutive_failures == _constant(0), _constant(0)),
            else_=old.consecutive_failures + _constant(1),
        ),
        "smoothed_seconds": smoothed,
        "overlaps_in_a_row": _constant(0),
    }


def _add(table: Table, *names: str) -> Assignments:
    return lambda new: {name: table.c[name] + new[name] for name in names}


def _constant(value: float | str) -> ColumnElement[Any]:
    """Write a constant of this module into the statement's text.

    PyMySQL sends many rows as one statement, and refuses to if there are parameters behind VALUES.
    """
    return literal_column(repr(value))
