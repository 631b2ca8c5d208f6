"""Claims: one holder each, whoever asks, however often, and whoever dies."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from subprocess import Popen
from typing import IO, Any

import pytest

from cronrunner.ledger.liveness import started
from cronrunner.model import Outcome, Repeat
from tests.conformance.conftest import LedgerDatabase, key, result_of, until
from tests.conformance.holder import report, this_run

ACME, BIRCH = key("acme"), key("birch")
#: The same pid on the same boot, but not the same process: the one meant is gone.
DEAD: dict[str, Any] = {"pid_started": started(os.getpid()) - 1}
ELSEWHERE: dict[str, Any] = {"host": "elsewhere"}


def test_a_claim_is_granted_once_and_is_then_held(database: LedgerDatabase) -> None:
    first, second = database.begin("r1"), database.begin("r2")

    assert first.claim([ACME, BIRCH]).granted == {ACME: 1, BIRCH: 1}
    refused = second.claim([ACME, BIRCH, key("cedar")])
    assert refused.granted == {key("cedar"): 1}
    assert refused.held == {ACME: "r1", BIRCH: "r1"}
    assert refused.duplicates == {}


def test_who_asks_twice_for_his_own_claim_has_it(database: LedgerDatabase) -> None:
    ledger = database.begin("r1")

    assert ledger.claim([ACME]).granted == ledger.claim([ACME]).granted == {ACME: 1}


@pytest.mark.parametrize("outcome", [Outcome.SUCCEEDED, Outcome.FAILED, Outcome.TENANT_GONE])
def test_a_closed_claim_is_a_duplicate_that_names_who_did_it(
    database: LedgerDatabase, outcome: Outcome
) -> None:
    first, second = database.begin("r1"), database.begin("r2")
    first.record(result_of(first.claim([ACME]), ACME, outcome=outcome))
    first.flush()

    assert second.claim([ACME]).duplicates == {ACME: "r1"}
    assert first.claim([ACME]).duplicates == {ACME: "r1"}


def test_again_takes_a_closed_claim_with_the_next_fence_and_no_held_one(
    database: LedgerDatabase,
) -> None:
    first, second, third = (database.begin(name) for name in ("r1", "r2", "r3"))
    first.record(result_of(first.claim([ACME]), ACME))
    first.flush()

    assert second.claim([ACME], repeat=Repeat.EVERYTHING).granted == {ACME: 2}
    assert third.claim([ACME], repeat=Repeat.EVERYTHING).held == {ACME: "r2"}


@pytest.mark.parametrize(
    ("outcome", "by_job", "open_afterwards"),
    [
        (Outcome.SKIPPED, True, False),
        (Outcome.CANCELLED, True, False),
        (Outcome.SKIPPED, False, True),
        (Outcome.CANCELLED, False, True),
        (Outcome.INTERRUPTED, False, True),
    ],
)
def test_what_the_runner_left_out_stays_open_for_who_comes_next(
    database: LedgerDatabase, outcome: Outcome, by_job: bool, open_afterwards: bool
) -> None:
    first, second = database.begin("r1"), database.begin("r2")
    first.record(result_of(first.claim([ACME]), ACME, outcome=outcome, by_job=by_job))
    first.flush()
    claims = second.claim([ACME])

    assert bool(claims.granted) is open_afterwards
    assert (claims.granted or {ACME: 2}) == {ACME: 2}
    assert bool(claims.duplicates) is not open_afterwards


def test_what_is_stuck_is_held_until_its_process_is_gone(database: LedgerDatabase) -> None:
    first, second = database.begin("r1", **ELSEWHERE), database.begin("r2")
    first.record(result_of(first.claim([ACME]), ACME, outcome=Outcome.STUCK))
    first.flush()
    assert second.claim([ACME]).held == {ACME: "r1"}

    database.clock.forward(seconds=21)
    assert second.claim([ACME]).granted == {ACME: 2}


def test_a_result_under_an_old_fence_changes_no_claim(database: LedgerDatabase) -> None:
    first = database.begin("r1", **DEAD)
    old = first.claim([ACME])
    second = database.begin("r2")
    assert second.claim([ACME]).granted == {ACME: 2}
    # The first one was only thought dead: what it records now must not close the second's claim.
    first.record(result_of(old, ACME, run="r1-late"))
    first.flush()

    assert database.rows("SELECT run, fence, state FROM claims") == [("r2", 2, "open")]


def test_names_that_differ_in_case_alone_are_two_tenants(database: LedgerDatabase) -> None:
    first, second = database.begin("r1"), database.begin("r2")

    assert first.claim([key("Acme")]).granted
    assert second.claim([key("acme")]).granted == {key("acme"): 1}
    assert second.claim([key("Acme")]).held
    first.accept_tenants("main", ["Acme", "acme"])
    assert database.queries.accepted_tenants() == {"main": frozenset({"Acme", "acme"})}


def test_two_slots_two_jobs_and_the_fleet_have_claims_of_their_own(
    database: LedgerDatabase,
) -> None:
    ledger = database.begin("r1")
    keys = [ACME, key(job="other"), key(slot_key="run:r1"), key(""), key("", job="count:prepare")]

    assert ledger.claim(keys).granted == dict.fromkeys(keys, 1)


# Whoever dies.


def test_a_live_run_keeps_its_claims_however_often_it_is_asked(database: LedgerDatabase) -> None:
    first, second = database.begin("r1"), database.begin("r2")
    first.claim([ACME])
    database.clock.forward(seconds=19)

    assert second.claim([ACME]).held == {ACME: "r1"}
    assert database.begin("r3").claim([ACME]).held == {ACME: "r1"}


def test_the_claims_of_a_run_elsewhere_are_held_until_its_lease_ends(
    database: LedgerDatabase,
) -> None:
    database.begin("r1", **ELSEWHERE).claim([ACME])
    second = database.begin("r2")
    database.clock.forward(seconds=19)
    assert second.claim([ACME]).held == {ACME: "r1"}

    database.clock.forward(seconds=2)
    assert second.claim([ACME]).granted == {ACME: 2}
    assert database.rows("SELECT run, outcome, reason FROM executions") == [
        ("r1", "interrupted", "the runner died")
    ]


def test_what_a_dead_run_left_is_recorded_as_interrupted_and_named_once(
    database: LedgerDatabase,
) -> None:
    first = database.begin("r1", **DEAD)
    claims = first.claim([ACME, BIRCH, key("cedar")])
    first.record(result_of(claims, ACME))
    first.flush()
    second, third = database.open(), database.open()

    left = [
        ledger.begin_run(this_run(name), fleet=True, selection={})
        for ledger, name in ((second, "r2"), (third, "r3"))
    ]
    assert left == [{"r1": 2}, {}]
    assert sorted(database.rows("SELECT tenant, outcome FROM executions WHERE run = 'r1'")) == [
        ("acme", "succeeded"), ("birch", "interrupted"), ("cedar", "interrupted"),
    ]  # fmt: skip
    assert third.claim([ACME, BIRCH]).granted == {BIRCH: 2}


def test_a_run_that_ended_leaves_nothing_and_is_not_found_dead(database: LedgerDatabase) -> None:
    first = database.begin("r1")
    first.claim([ACME])
    first.finish_run(report(this_run("r1")), discovered={"main": 1})
    second = database.open()

    assert second.begin_run(this_run("r2"), fleet=True, selection={}) == {}
    assert second.claim([ACME]).granted == {ACME: 2}


def test_the_lease_of_a_run_that_works_is_renewed(database: LedgerDatabase) -> None:
    first = database.begin("r1", heartbeat=timedelta(seconds=0.05), **ELSEWHERE)
    first.claim([ACME])
    database.clock.forward(seconds=30)
    # Twelve hours, thirty seconds, and the lease of twenty.
    until(lambda: "12:00:50" in str(database.rows("SELECT lease_until FROM runs")[0][0]))

    assert database.begin("r2").claim([ACME]).held == {ACME: "r1"}


def test_two_processes_that_claim_the_same_keys_at_once_get_each_once(
    database: LedgerDatabase,
) -> None:
    database.open()
    with ExitStack() as stack:
        both = [stack.enter_context(running(database, f"p{n}", 500)) for n in range(2)]
        for process in both:
            assert said(process) == "ready"
        for process in both:
            go(process)
        answers = [[int(part) for part in said(process).split()] for process in both]

    assert [sum(answer) for answer in answers] == [500, 500]
    assert sum(granted for granted, _ in answers) == 500
    assert database.rows("SELECT count(*), min(fence), max(fence) FROM claims") == [(500, 1, 1)]


def test_a_process_that_is_killed_frees_its_claims_at_once(database: LedgerDatabase) -> None:
    database.open()
    with running(database, "killed", 40) as process:
        assert said(process) == "ready"
        go(process)
        assert said(process) == "40 0"
        ledger = database.begin("r1")
        keys = [key(f"t{n:03}") for n in range(40)]
        assert len(ledger.claim(keys).held) == 40
        process.kill()
        # Not waited for: its entry in the process table is still there.
        until(lambda: started(process.pid) == 0)
        assert ledger.claim(keys).granted == dict.fromkeys(keys, 2)

    assert database.rows("SELECT count(*) FROM executions WHERE outcome = 'interrupted'") == [(40,)]


@contextmanager
def running(database: LedgerDatabase, name: str, tenants: int) -> Iterator[Popen[str]]:
    process = database.process(name, tenants)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


def said(process: Popen[str]) -> str:
    return pipe(process.stdout).readline().strip()


def go(process: Popen[str]) -> None:
    pipe(process.stdin).write("go\n")
