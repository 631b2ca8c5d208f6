"""The ledger's frequent statements, made once; what differs between databases is here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Dialect,
    Executable,
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
    statistics,
    tenants,
)
from cronrunner.model import Outcome

#: Weight of the newest duration in the smoothed one: about the last six runs count.
_NEWEST: Final = 0.3

#: Given the columns of the new row, the assignments for a row that exists.
Assignments = Callable[[Any], Mapping[str, ColumnElement[Any]]]


class Statements:
    """What is executed for every group of executions, in one dialect.

    Rows are given as parameters, many at a time.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._mysql = dialect.name in {"mysql", "mariadb"}
        #: Inserts a claim unless the row exists.
        self.new_claims = self._upsert(claims, lambda _: {"fence": claims.c.fence})
        #: The claims of ``tenant_names`` for a job's slot.
        self.find_claims = select(claims).where(
            claims.c.job == bindparam("job"),
            claims.c.slot_key == bindparam("slot_key"),
            claims.c.tenant.in_(bindparam("tenant_names", expanding=True)),
        )
        self.end_claims = self._upsert(claims, _end_claim)
        self.new_executions = insert(executions)
        self.new_attempts = insert(attempts)
        self.count_run = self._upsert(statistics, _count_run)
        self.count_only = self._upsert(statistics, _count_totals)
        self.count_durations = self._upsert(durations, _add(durations, "executions", "seconds"))
        #: Inserts a tenant unless another run has just done so.
        self.new_tenants = self._upsert(tenants, lambda _: {"tenant": tenants.c.tenant})
        self.count_events = self._upsert(counters, _add(counters, "value"))

    def _upsert(self, table: Table, assign: Assignments) -> Executable:
        if self._mysql:
            on_mysql = mysql_insert(table)
            return on_mysql.on_duplicate_key_update(list(assign(on_mysql.inserted).items()))
        on_sqlite = sqlite_insert(table)
        return on_sqlite.on_conflict_do_update(
            index_elements=list(table.primary_key.columns),
            set_=dict(assign(on_sqlite.excluded)),
        )


def _end_claim(new: Any) -> Mapping[str, ColumnElement[Any]]:  # noqa: ANN401 - a column collection
    """End a claim, if it is still held under the same fence by the run that ends it.

    ``run`` comes last: MySQL assigns from left to right and would compare with the new one.
    """
    mine = (claims.c.run == new.run) & (claims.c.fence == new.fence)
    end = {
        name: case((mine, new[name]), else_=claims.c[name])
        for name in ("state", "outcome", "closed_at")
    }
    # A stuck thread may still be at work: its claim is free when its run has ended.
    is_stuck = new.outcome == _constant(Outcome.STUCK.value)
    left = mine & (new.state == _constant("open")) & ~is_stuck
    freed = case((left, _constant("")), else_=claims.c.run)
    return {**end, "run": freed}


def _count_totals(new: Any) -> Mapping[str, ColumnElement[Any]]:  # noqa: ANN401
    return {each.value: statistics.c[each.value] + new[each.value] for each in Outcome}


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
    }


def _add(table: Table, *names: str) -> Assignments:
    return lambda new: {name: table.c[name] + new[name] for name in names}


def _constant(value: float | str) -> ColumnElement[Any]:
    """Write a constant of this module into the statement's text.

    PyMySQL sends many rows as one statement, and refuses to if there are parameters behind VALUES.
    """
    return literal_column(repr(value))
