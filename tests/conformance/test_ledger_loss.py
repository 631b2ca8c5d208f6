"""What a ledger does when a run lost its lease, and with outcomes that it cannot take."""

from collections.abc import Sequence
from contextlib import closing
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

import pytest
from sqlalchemy import Connection

from cronrunner.errors import LedgerError
from cronrunner.ledger import ExecutionFilter, liveness, queries, writing
from cronrunner.ledger import history as reading_history
from cronrunner.model import Claims, Outcome, Result
from tests.conformance.conftest import NOON, LedgerDatabase, key, result_of, until
from tests.conformance.holder import report, this_run

ACME, BIRCH, CEDAR = key("acme"), key("birch"), key("cedar")
#: The next heartbeat comes after the test.
SELDOM = timedelta(seconds=19)
OFTEN = timedelta(seconds=0.05)
ELSEWHERE: dict[str, Any] = {"host": "elsewhere"}
NONE = Claims(granted={}, duplicates={}, held={})
LOST = "the lease was lost: another command has recorded this run as dead"


def buried(database: LedgerDatabase, name: str) -> None:
    """Let another command find a run dead whose lease is over."""
    database.clock.forward(seconds=21)
    database.begin(name, heartbeat=SELDOM)


def history(database: LedgerDatabase) -> list[tuple[Any, ...]]:
    return sorted(database.rows("SELECT run, tenant, outcome FROM executions"))


# A lease that is lost.


def test_a_run_that_lost_its_lease_ends_at_its_next_heartbeat(database: LedgerDatabase) -> None:
    ledger = database.begin("r1", heartbeat=OFTEN, **ELSEWHERE)
    ledger.claim([ACME])
    database.execute(f"UPDATE runs SET finished_at = '{NOON:%Y-%m-%d %H:%M:%S.%f}'")
    until(lambda: ledger._writer.failure is not None)

    for ask in (ledger.flush, lambda: ledger.claim([BIRCH])):
        with pytest.raises(LedgerError, match=LOST):
            ask()
    with pytest.raises(LedgerError, match=LOST):
        ledger.record(result_of(NONE, ACME))


def test_a_run_that_lost_its_lease_claims_nothing_more(database: LedgerDatabase) -> None:
    ledger = database.begin("r1", heartbeat=SELDOM, **ELSEWHERE)
    ledger.claim([ACME])
    buried(database, "r2")

    with pytest.raises(LedgerError, match=LOST):
        ledger.claim([ACME, BIRCH])
    with pytest.raises(LedgerError, match=LOST):
        ledger.flush()
    assert database.rows("SELECT tenant, run FROM claims") == [("acme", "")]


def test_a_claim_renews_the_lease(database: LedgerDatabase) -> None:
    ledger = database.begin("r1", heartbeat=SELDOM, **ELSEWHERE)
    database.clock.forward(seconds=19)
    ledger.claim([ACME])
    database.clock.forward(seconds=19)

    assert database.begin("r2", heartbeat=SELDOM).claim([ACME]).held == {ACME: "r1"}


@pytest.mark.parametrize("database", ["mariadb"], indirect=True)
def test_a_lease_that_is_renewed_while_somebody_judges_it_is_not_lost(
    database: LedgerDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a server: the writers of a SQLite ledger take turns."""
    ledger = database.begin("r1", heartbeat=SELDOM, **ELSEWHERE)
    ledger.claim([ACME])
    second = database.begin("r2", heartbeat=SELDOM)

    def judge(run: Any, *, now: datetime) -> bool:
        del run
        later = now + timedelta(seconds=1)
        moment = f"{later:%Y-%m-%d %H:%M:%S.%f}"
        database.execute(f"UPDATE runs SET lease_until = '{moment}' WHERE run = 'r1'")
        return False

    monkeypatch.setattr(liveness, "is_alive", judge)
    assert second.claim([ACME]).held == {ACME: "r1"}
    assert history(database) == []
    assert ledger.claim([ACME]).granted == {ACME: 1}


def test_an_outcome_that_is_there_wins_and_the_others_of_its_group_are_recorded(
    database: LedgerDatabase,
) -> None:
    ledger = database.begin("r1", heartbeat=SELDOM, **ELSEWHERE)
    claims = ledger.claim([ACME, BIRCH])
    buried(database, "r2")
    for each in (ACME, BIRCH, CEDAR):
        ledger.record(result_of(claims, each))
    ledger.flush()

    assert history(database) == [
        ("r1", "acme", "interrupted"), ("r1", "birch", "interrupted"), ("r1", "cedar", "succeeded"),
    ]  # fmt: skip
    totals = "SELECT tenant, succeeded, interrupted FROM statistics"
    assert sorted(database.rows(totals)) == [("acme", 0, 1), ("birch", 0, 1), ("cedar", 1, 0)]


def test_a_run_that_ends_between_two_heartbeats_has_not_lost_its_lease(
    database: LedgerDatabase,
) -> None:
    ledger = database.begin("r1", heartbeat=timedelta(microseconds=1))
    ledger.finish_run(report(this_run("r1")), discovered={})
    for _ in range(50):
        ledger.flush()

    assert ledger._writer.failure is None


def test_a_write_is_not_repeated_for_longer_than_the_lease_lasts(database: LedgerDatabase) -> None:
    lease = timedelta(seconds=1.2)
    ledger = database.open(heartbeat=timedelta(seconds=0.2), lease=lease)
    assert ledger._writer.patience_seconds == pytest.approx(1.0)
    if database.server is None:
        with closing(ledger._writer.engine.connect()) as connection:
            assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 250


# Outcomes that cannot be taken.

REFUSED: list[dict[str, Any]] = [
    {"counters": {"rows": 10**5000}},
    {"outcome": Outcome.FAILED, "error": "half a pair: \ud800", "cause": "\ud800", "code": "E"},
    {"duration_seconds": 1.0, "reason": b"not a text" * 9, "counters": {"x": object()}},
]


@pytest.mark.parametrize("given", REFUSED, ids=["number", "surrogate", "type"])
def test_an_outcome_that_cannot_be_stored_is_a_failure_and_costs_no_other(
    database: LedgerDatabase, given: dict[str, Any]
) -> None:
    ledger = database.begin("r1", heartbeat=SELDOM)
    keys = [key(f"t{n}") for n in range(9)]
    claims = ledger.claim(keys)
    with ledger._writer._wake:
        for each in keys:
            ledger.record(result_of(claims, each, **(given if each.tenant == "t4" else {})))
    # It is answered, and so is whoever asks after it.
    ledger.flush()
    ledger.keep_prepared("count", "s", "1")

    rows = {row["tenant"]: row for row in database.queries.executions(ExecutionFilter(run="r1"))}
    odd = rows.pop("t4")
    assert {row["outcome"] for row in rows.values()} == {"succeeded"}
    assert len(rows) == 8
    assert odd["outcome"] == "failed"
    assert odd["error"].startswith("its outcome could not be recorded: ")
    assert odd["error"].endswith("Error")
    assert (odd["reason"], odd["counters"], odd["cause"], odd["code"]) == (None, {}, None, None)
    assert database.queries.outcomes_of_slot("count", keys[0].slot_key)["t4"] == (
        "closed", "failed",
    )  # fmt: skip


def test_a_call_that_is_refused_concerns_who_asked_and_no_other(database: LedgerDatabase) -> None:
    ledger = database.begin("r1", heartbeat=SELDOM)
    with pytest.raises(LedgerError, match="the ledger refused this"):
        ledger.keep_prepared("count", "s", "\ud800")

    assert ledger.claim([ACME]).granted == {ACME: 1}


def test_a_drain_is_written_in_groups_and_an_answer_comes_after_the_last(
    database: LedgerDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_GROUP", 20)
    ledger = database.begin("r1", heartbeat=SELDOM)
    groups: list[int] = []
    write = ledger._writer._record

    def note(connection: Connection, results: Sequence[Result]) -> None:
        groups.append(len(results))
        write(connection, results)

    monkeypatch.setattr(ledger._writer, "_record", note)
    for n in range(110):
        ledger.record(result_of(NONE, key(f"t{n}")))
    ledger.flush()

    assert database.rows("SELECT count(*) FROM executions") == [(110,)]
    assert max(groups) == 20


# Readers.


def test_slow_readers_hold_no_connection(
    database: LedgerDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (queries, reading_history):
        monkeypatch.setattr(module, "PAGE", 3)
    ledger = database.begin("r1", heartbeat=SELDOM)
    for n in range(10):
        at = NOON + timedelta(seconds=n // 4)
        ledger.record(result_of(NONE, key(f"t{n}"), started_at=at))
        ledger.flush()
    ask = database.queries
    wanted = [ExecutionFilter(run="r1"), ExecutionFilter(), ExecutionFilter(limit=7)]
    readers = [*map(ask.executions, wanted), ask.executions_of_slot("count", ACME.slot_key)]
    begun = [[row["tenant"] for row in islice(each, 2)] for each in readers]
    assert database.opened[0]._engine.pool.checkedout() == 0  # type: ignore[attr-defined]

    found = [[*first, *(row["tenant"] for row in rest)] for first, rest in zip(begun, readers)]  # noqa: B905 - as long
    inorder = [f"t{n}" for n in range(10)]
    assert found == [inorder, inorder[::-1], inorder[:2:-1], inorder]


def test_a_reader_that_holds_its_connection_does_not_keep_the_writer_waiting(
    database: LedgerDatabase,
) -> None:
    ledger = database.begin("r1", heartbeat=SELDOM)
    with ledger._engine.connect() as reader:
        assert ledger.claim([ACME]).granted == {ACME: 1}
        assert ledger._writer.engine.pool is not reader.engine.pool
    if database.server is not None:
        sizes = [each.pool.size() for each in (ledger._engine, ledger._writer.engine)]  # type: ignore[attr-defined]
        assert sizes == [1, 1]
