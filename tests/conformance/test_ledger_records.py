"""What the ledger remembers: outcomes, statistics, prepared values, tenants, and how it is asked."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from cronrunner.errors import LedgerError
from cronrunner.ledger import ExecutionFilter, writing
from cronrunner.ledger.store import Ledger
from cronrunner.model import (
    DURATION_BUCKETS,
    Claims,
    Key,
    LedgerSnapshot,
    Outcome,
    Statistics,
)
from tests.conformance.conftest import NOON, LedgerDatabase, key, result_of
from tests.conformance.holder import SLOT, report, this_run

ACME = key("acme")
NONE = Claims(granted={}, duplicates={}, held={})


def record(ledger: Ledger, at: Key = ACME, **given: Any) -> None:
    """Record a result in a run of its own, which history asks for."""
    run = f"r{record.count}"  # type: ignore[attr-defined]
    record.count += 1  # type: ignore[attr-defined]
    ledger.record(result_of(NONE, at, run=run, **given))
    ledger.flush()


record.count = 0  # type: ignore[attr-defined]


def statistics(database: LedgerDatabase, at: Key = ACME) -> Statistics:
    return database.queries.statistics()[at.job, at.tenant]


def snapshot(database: LedgerDatabase) -> LedgerSnapshot:
    return database.queries.snapshot(database.clock)


# Statistics.


def test_a_success_is_remembered_with_its_end_and_its_duration(database: LedgerDatabase) -> None:
    record(database.begin("r"), duration_seconds=3.0)

    assert statistics(database) == Statistics(
        job="count",
        tenant="acme",
        totals={each: int(each is Outcome.SUCCEEDED) for each in Outcome},
        last_outcome=Outcome.SUCCEEDED,
        last_run_at=NOON + timedelta(seconds=3),
        last_success_at=NOON + timedelta(seconds=3),
        last_duration_seconds=3.0,
        consecutive_failures=0,
        smoothed_seconds=3.0,
    )


def test_failures_are_counted_until_a_success(database: LedgerDatabase) -> None:
    ledger = database.begin("r")
    for outcome in (Outcome.SUCCEEDED, Outcome.FAILED, Outcome.TIMED_OUT, Outcome.TENANT_GONE):
        record(ledger, outcome=outcome)
    found = statistics(database)
    assert found.consecutive_failures == 3
    assert found.last_outcome is Outcome.TENANT_GONE
    assert found.last_success_at == NOON + timedelta(seconds=2)

    record(ledger)
    assert statistics(database).consecutive_failures == 0
    assert sum(statistics(database).totals.values()) == 5


def test_the_last_success_only_moves_forward(database: LedgerDatabase) -> None:
    ledger = database.begin("r")
    record(ledger)
    record(ledger, started_at=NOON - timedelta(hours=1))
    assert statistics(database).last_success_at == NOON + timedelta(seconds=2)

    record(ledger, started_at=NOON + timedelta(hours=1), outcome=Outcome.FAILED)
    assert statistics(database).last_success_at == NOON + timedelta(seconds=2)
    record(ledger, started_at=NOON + timedelta(hours=2))
    assert statistics(database).last_success_at == NOON + timedelta(hours=2, seconds=2)


def test_the_first_success_after_failures_alone_is_the_last_one(database: LedgerDatabase) -> None:
    ledger = database.begin("r")
    record(ledger, outcome=Outcome.FAILED)
    assert statistics(database).last_success_at is None
    record(ledger)

    assert statistics(database).last_success_at == NOON + timedelta(seconds=2)


@pytest.mark.parametrize("outcome", [Outcome.SKIPPED, Outcome.CANCELLED, Outcome.INTERRUPTED])
def test_what_the_runner_left_out_is_counted_and_changes_nothing_else(
    database: LedgerDatabase, outcome: Outcome
) -> None:
    ledger = database.begin("r")
    record(ledger, outcome=Outcome.FAILED, duration_seconds=3.0)
    before = statistics(database)
    record(ledger, outcome=outcome, started_at=NOON + timedelta(hours=1), duration_seconds=0.0)

    assert statistics(database) == replace(before, totals={**before.totals, outcome: 1})


@pytest.mark.parametrize("outcome", [Outcome.SKIPPED, Outcome.CANCELLED, Outcome.INTERRUPTED])
def test_a_pair_that_was_only_ever_left_out_never_ran(
    database: LedgerDatabase, outcome: Outcome
) -> None:
    ledger = database.begin("r")
    record(ledger, outcome=outcome)
    found = statistics(database)

    assert found.totals[outcome] == 1
    assert (found.last_outcome, found.last_run_at, found.last_success_at) == (None, None, None)
    assert (found.smoothed_seconds, found.consecutive_failures) == (None, 0)
    record(ledger, duration_seconds=4.0)
    assert statistics(database).smoothed_seconds == 4.0


def test_a_jobs_own_skip_is_an_outcome_of_it_and_ends_a_row_of_failures(
    database: LedgerDatabase,
) -> None:
    ledger = database.begin("r")
    record(ledger, outcome=Outcome.FAILED)
    record(ledger, outcome=Outcome.SKIPPED, by_job=True)

    assert statistics(database).last_outcome is Outcome.SKIPPED
    assert statistics(database).consecutive_failures == 0


def test_the_smoothed_duration_follows_slowly(database: LedgerDatabase) -> None:
    ledger = database.begin("r")
    record(ledger, duration_seconds=10.0)
    record(ledger, duration_seconds=20.0)

    assert statistics(database).smoothed_seconds == pytest.approx(13.0)
    assert statistics(database).last_duration_seconds == 20.0


def test_results_of_one_group_are_folded_like_single_ones(database: LedgerDatabase) -> None:
    ledger = database.begin("r")
    for n in range(30):
        outcome = Outcome.FAILED if n % 3 else Outcome.SUCCEEDED
        ledger.record(result_of(NONE, ACME, run=f"g{n}", outcome=outcome))
    ledger.flush()

    assert statistics(database).totals[Outcome.FAILED] == 20
    assert statistics(database).totals[Outcome.SUCCEEDED] == 10
    assert statistics(database).consecutive_failures == 2


# What metrics are made of.


def test_durations_are_counted_in_their_buckets(database: LedgerDatabase) -> None:
    ledger = database.begin("r")
    for seconds in (0.005, 0.006, 4000.0):
        record(ledger, duration_seconds=seconds)
    record(ledger, outcome=Outcome.SKIPPED)
    counts, total = snapshot(database).durations["count"]

    assert len(counts) == len(DURATION_BUCKETS) + 1
    assert (counts[0], counts[1], counts[-1], sum(counts)) == (1, 1, 1, 3)
    assert total == pytest.approx(4000.011)


def test_counters_add_up_and_states_are_replaced(database: LedgerDatabase) -> None:
    ledger = database.begin("r")
    ledger.add_counters({("errors", "1146"): 2, ("errors", "1049"): 1})
    ledger.add_counters({("errors", "1146"): 3})
    ledger.add_counters({}, {("open", "main"): 1})
    ledger.add_counters({}, {("open", "main"): 0})

    counters = {("errors", "1146"): 5, ("errors", "1049"): 1}
    assert snapshot(database).counters == counters | {("open", "main"): 0}


def test_a_tenant_that_is_gone_leaves_the_snapshot_and_not_the_totals(
    database: LedgerDatabase,
) -> None:
    ledger = database.begin("r")
    ledger.accept_tenants("main", ["acme", "birch"])
    for name in ("acme", "birch", ""):
        record(ledger, key(name))
    assert {each.tenant for each in snapshot(database).statistics} == {"acme", "birch", ""}

    ledger.accept_tenants("main", ["birch"])
    found = snapshot(database)
    assert {each.tenant for each in found.statistics} == {"birch", ""}
    assert found.job_totals["count", "succeeded"] == 3
    assert found.tenants == {"main": 1}


def test_the_last_runs_are_those_of_the_fleet(database: LedgerDatabase) -> None:
    for name, code, fleet in (("well", None, True), ("bad", 70, True), ("part", None, False)):
        ledger = database.open()
        run = this_run(name)
        ledger.begin_run(run, fleet=fleet, selection={})
        database.clock.forward(minutes=1)
        ledger.finish_run(
            replace(report(run), forced=code, finished_at=database.clock()), discovered={"main": 3}
        )
    found = snapshot(database)

    assert found.last_completed is not None
    assert found.last_succeeded is not None
    assert (found.last_completed.run.id, found.last_completed.exit_code) == ("bad", 70)
    assert found.last_succeeded.run.id == "well"


# Prepared values.


def test_a_prepared_value_belongs_to_its_job_and_slot(database: LedgerDatabase) -> None:
    ledger = database.begin("r")
    ledger.keep_prepared("count", "s1", '{"long": "' + "x" * 200_000 + '"}')
    ledger.keep_prepared("count", "s2", "1")
    ledger.keep_prepared("count", "s2", "2")
    ask = database.queries.prepared

    assert len(ask("count", "s1") or "") > 200_000
    assert ask("count", "s2") == "2"
    assert ask("other", "s2") is None


# History.


def names(database: LedgerDatabase, **wanted: Any) -> list[str]:
    rows = database.queries.executions(ExecutionFilter(**wanted))
    return [row["tenant"] for row in rows]


def test_history_is_newest_first_and_that_of_a_run_in_its_order(database: LedgerDatabase) -> None:
    ledger = database.begin("r")
    for minutes, name in ((2, "b"), (1, "c"), (3, "a")):
        at = NOON + timedelta(minutes=minutes)
        ledger.record(result_of(NONE, key(name), run="one", started_at=at))
        ledger.flush()

    assert names(database) == ["a", "b", "c"]
    assert names(database, run="one") == ["b", "c", "a"]
    assert names(database, limit=2) == ["a", "b"]
    assert names(database, since=NOON + timedelta(minutes=2)) == ["a", "b"]
    assert names(database, until=NOON + timedelta(minutes=2)) == ["c"]


def test_underscore_and_percent_are_literal_in_globs_and_case_counts(
    database: LedgerDatabase,
) -> None:
    ledger = database.begin("r")
    for name in ("a_b", "aXb", "A_b", "a%b", "a.b", "a[1]"):
        record(ledger, key(name))

    def found(pattern: str) -> set[str]:
        return set(names(database, tenant=pattern))

    assert found("a_b") == {"a_b"}
    assert found("a_*") == {"a_b"}
    assert found("a%*") == {"a%b"}
    assert found("a.*") == {"a.b"}
    assert found("a?b") == {"a_b", "aXb", "a%b", "a.b"}
    assert found("a[_X]b") == {"a_b", "aXb"}
    assert found("[!a]*") == {"A_b"}
    assert found("a[1]") == {"a[1]"}
    assert found("*") == {"a_b", "aXb", "A_b", "a%b", "a.b", "a[1]"}
    assert names(database, job="co*", tenant="A_b", outcomes=("succeeded", "failed")) == ["A_b"]
    assert names(database, job="other") == []


def test_a_run_is_found_by_its_id_its_beginning_and_as_the_last(database: LedgerDatabase) -> None:
    for name in ("20260301-aa", "20260301-ab", "20260302-aa"):
        database.clock.forward(minutes=1)
        database.begin(name)

    def ask(name: str) -> list[str]:
        return [row["run"] for row in database.queries.find_runs(name)]

    assert ask("last") == ask("20260302") == ["20260302-aa"]
    assert ask("20260301-aa") == ["20260301-aa"]
    assert ask("20260301") == ["20260301-ab", "20260301-aa"]
    assert ask("2026030_") == []
    assert [row["run"] for row in database.queries.runs(2)] == ["20260302-aa", "20260301-ab"]


def test_the_last_run_with_work_is_none_that_found_everything_done(
    database: LedgerDatabase,
) -> None:
    def ask() -> list[str]:
        return [row["run"] for row in database.queries.find_runs("last", with_work=True)]

    database.begin("20260301-aa")
    database.clock.forward(minutes=1)
    ledger = database.begin("20260301-ab")
    assert ask() == ["20260301-ab"]

    ledger.finish_run(report(this_run("20260301-ab")), discovered={})
    assert ask() == ["20260301-aa"]
    assert [row["run"] for row in database.queries.find_runs("last")] == ["20260301-ab"]


def test_an_execution_is_kept_whole(database: LedgerDatabase) -> None:
    ledger = database.begin("r1")
    ledger.record(
        result_of(
            ledger.claim([ACME]), ACME, outcome=Outcome.FAILED, error="boom 'é'", cause="boom",
            code="1146", reason="because", counters={"rows": 3}, note="half of it",
        )
    )  # fmt: skip
    ledger.flush()
    (row,) = database.queries.executions(ExecutionFilter(run="r1"))

    assert {name: row[name] for name in ("error", "cause", "code", "reason", "note", "counters")} == {
        "error": "boom 'é'", "cause": "boom", "code": "1146", "reason": "because",
        "note": "half of it", "counters": {"rows": 3},
    }  # fmt: skip
    assert (row["slot"], row["started_at"], row["fence"]) == (SLOT.at, NOON, 1)
    attempts = "SELECT run, job, tenant, attempt, outcome FROM attempts"
    assert database.rows(attempts) == [("r1", "count", "acme", 1, "failed")]


def test_what_a_run_holds_and_how_a_slot_stands_can_be_asked(database: LedgerDatabase) -> None:
    ledger = database.begin("r1")
    claims = ledger.claim([ACME, key("birch")])
    ledger.record(result_of(claims, ACME))
    ledger.flush()

    assert [row["tenant"] for row in database.queries.in_flight("r1")] == ["birch"]
    assert database.queries.outcomes_of_slot("count", SLOT.key) == {
        "acme": ("closed", "succeeded"), "birch": ("open", None),
    }  # fmt: skip


def test_of_a_repeated_slot_the_last_execution_of_each_tenant_counts(
    database: LedgerDatabase,
) -> None:
    ledger = database.begin("r1")
    for n, name in enumerate(("birch", "acme", "birch")):
        outcome = Outcome.FAILED if n == 0 else Outcome.SUCCEEDED
        ledger.record(result_of(NONE, key(name), run=f"r{n}", outcome=outcome))
        ledger.flush()
    found = database.queries.executions_of_slot("count", SLOT.key)

    assert [(row["tenant"], row["outcome"]) for row in found] == [
        ("acme", "succeeded"), ("birch", "succeeded"),
    ]  # fmt: skip


def test_a_tenant_that_was_done_and_is_left_out_of_a_later_run_of_the_slot_counts_as_done(
    database: LedgerDatabase,
) -> None:
    ledger = database.begin("r1")
    ledger.record(result_of(ledger.claim([key()]), key(), outcome=Outcome.SUCCEEDED))
    ledger.record(result_of(NONE, key(), run="r2", outcome=Outcome.SKIPPED, reason="paused: x"))
    ledger.flush()

    (row,) = database.queries.executions_of_slot("count", SLOT.key)
    assert (row["run"], row["outcome"]) == ("r1", "succeeded")


# When the ledger is away.


def test_a_ledger_that_is_away_for_a_moment_loses_nothing(database: LedgerDatabase) -> None:
    ledger = database.begin("r1")
    claims = ledger.claim([key(f"t{n}") for n in range(50)])
    with database.away():
        for each in claims.granted:
            ledger.record(result_of(claims, each))
    ledger.flush()

    assert database.rows("SELECT count(*) FROM executions") == [(50,)]
    assert statistics(database, key("t7")).totals[Outcome.SUCCEEDED] == 1


def test_a_ledger_that_is_lost_for_good_says_so_to_everybody_who_asks(
    database: LedgerDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "PATIENCE_SECONDS", 0.2)
    ledger = database.begin("r1")
    claims = ledger.claim([ACME])
    database.execute("DROP TABLE executions")
    ledger.record(result_of(claims, ACME))

    with pytest.raises(LedgerError, match="the ledger was lost"):
        ledger.flush()
    for ask in (ledger.flush, lambda: ledger.claim([ACME]), lambda: ledger.record(
        result_of(claims, ACME)
    )):  # fmt: skip
        with pytest.raises(LedgerError, match="the ledger was lost"):
            ask()
    # What was not committed as a whole was not committed in part.
    assert database.rows("SELECT state FROM claims") == [("open",)]
    assert database.rows("SELECT count(*) FROM statistics") == [(0,)]


def test_a_closed_ledger_takes_nothing_more_and_has_kept_what_it_took(
    database: LedgerDatabase,
) -> None:
    database.open()
    ledger = database.begin("r1")
    claims = ledger.claim([ACME])
    ledger.record(result_of(claims, ACME))
    ledger.close()

    assert database.rows("SELECT outcome FROM executions") == [("succeeded",)]
    with pytest.raises(LedgerError, match="closed"):
        ledger.claim([ACME])


# Drains.


def end_run(database: LedgerDatabase, name: str, selection: dict[str, Any], code: int) -> None:
    """Begin and end a run, an hour after the last one."""
    database.clock.forward(hours=1)
    ledger, run = database.open(), replace(this_run(name), started_at=database.clock())
    ledger.begin_run(run, fleet=not selection, selection=selection)
    ledger.finish_run(replace(report(run), forced=code), discovered={})


def test_only_the_last_completed_run_of_a_selection_tells_whether_it_was_drained(
    database: LedgerDatabase,
) -> None:
    gold = {"labels": {"plan": "gold"}}
    end_run(database, "r1", {}, 0)
    end_run(database, "r2", {}, 75)
    drained_at = database.clock()
    end_run(database, "r3", gold, 0)
    database.clock.forward(hours=1)
    database.begin("r4")
    assert database.queries.drained_since({}) == drained_at
    assert database.queries.drained_since(gold) is None
    assert database.queries.drained_since({"jobs": ["a"]}) is None

    end_run(database, "r5", {}, 1)
    assert database.queries.drained_since({}) is None
