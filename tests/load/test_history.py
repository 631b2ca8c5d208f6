"""A long history: whatever is asked for is found by an index, in its order, and few rows are read."""

import re
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event, make_url

from cronrunner.databases import Endpoint
from cronrunner.ledger import ExecutionFilter, Queries, open_engine
from tests.load.ledgers import LAST_NIGHT, Past, fill

PAST = Past(tenants=1000, jobs=5, runs=20)

#: A row that is looked at is many of these.
STEPS_PER_ROW = 100


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    path = tmp_path_factory.mktemp("history") / "ledger.db"
    fill(path, PAST)
    return open_engine(Endpoint(name="ledger", url=make_url(f"sqlite:///{path}")))


FILTERS: list[dict[str, Any]] = [
    {},
    {"job": "job.02"},
    {"job": "job.0*"},
    {"tenant": "agency_000077"},
    {"tenant": "agency_00007*"},
    {"tenant": "*077"},
    {"tenant": "*7"},
    {"outcomes": ("failed",)},
    {"outcomes": ("stuck",)},
    {"outcomes": ("failed", "timed_out")},
    {"outcomes": ("succeeded", "skipped")},
    {"job": "job.02", "outcomes": ("stuck",)},
    {"job": "job.02", "tenant": "agency_000077", "outcomes": ("stuck",)},
    {"tenant": "agency_000077", "outcomes": ("succeeded",)},
    {"since": LAST_NIGHT},
    {"until": LAST_NIGHT - timedelta(days=10)},
    {"since": LAST_NIGHT, "job": "job.01", "outcomes": ("stuck",)},
]


@pytest.mark.parametrize("wanted", FILTERS, ids=str)
def test_history_reads_no_more_than_a_hundredth_of_a_ledger(
    engine: Engine, wanted: dict[str, Any]
) -> None:
    statements: list[tuple[str, Any]] = []
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    with engine.connect() as connection:
        session = connection.connection.dbapi_connection
        assert session is not None
        session.set_progress_handler(count, STEPS_PER_ROW)

    @event.listens_for(engine, "before_cursor_execute")
    def note(conn: Any, cursor: Any, statement: str, parameters: Any, *_: object) -> None:
        statements.append((statement, parameters))

    try:
        list(Queries(engine).executions(ExecutionFilter(**wanted, limit=50)))
    finally:
        event.remove(engine, "before_cursor_execute", note)
        session.set_progress_handler(None, 0)

    rows = PAST.tenants * PAST.jobs * PAST.runs
    assert steps < rows / 20
    for statement, parameters in statements:
        plan = "\n".join(
            row[-1] for row in session.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
        )
        assert "TEMP B-TREE" not in plan, (statement, plan)
        assert not re.search(r"SCAN executions(?! USING)", plan), (statement, plan)


def test_a_runs_executions_are_read_without_those_of_others(engine: Engine) -> None:
    found = list(Queries(engine).executions(ExecutionFilter(run="night-00003")))

    assert len(found) == PAST.tenants * PAST.jobs
    assert [row["id"] for row in found] == sorted(row["id"] for row in found)
