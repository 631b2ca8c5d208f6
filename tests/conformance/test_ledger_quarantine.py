"""Pairs that fail apart from all others, over every kind of ledger."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from cronrunner.events import Event, PairQuarantined, PairReleased
from cronrunner.ledger.quarantine import Quarantine
from cronrunner.model import Claims, Outcome, Slot, Statistics
from tests.conformance.conftest import LedgerDatabase, key, result_of
from tests.conformance.holder import report, this_run

NONE = Claims(granted={}, duplicates={}, held={})
OLD, NEW = "0ld", "new"
BAD = {"acme": Outcome.FAILED, "birch": Outcome.SUCCEEDED}
WELL = dict.fromkeys(BAD, Outcome.SUCCEEDED)


def end_run(
    database: LedgerDatabase,
    outcomes: Mapping[str, Outcome],
    *,
    after: int = 3,
    digest: str = OLD,
    server_fault: bool = False,
) -> list[Event]:
    """Make a run of one job a day after the last, with these outcomes by tenant."""
    database.clock.forward(days=1)
    ledger = database.open(quarantine=Quarantine(after=after, digests={"count": digest}))
    name, now = f"r{database.clock():%d}", database.clock()
    run = replace(this_run(name), started_at=now, slot=Slot.scheduled(now))
    ledger.begin_run(run, fleet=True, selection={})
    for tenant, outcome in outcomes.items():
        fault = server_fault and outcome is Outcome.FAILED
        ledger.record(result_of(NONE, key(tenant), run=name, outcome=outcome, server_fault=fault))
    ledger.flush()
    ended = replace(report(run), finished_at=now)
    events = list(ledger.finish_run(ended, discovered={}))
    assert ledger.finish_run(ended, discovered={}) == [], "a run is judged once"
    ledger.close()
    return events


def acme(database: LedgerDatabase) -> Statistics:
    return database.queries.statistics()["count", "acme"]


def test_so_many_failures_in_a_row_while_others_succeed_quarantine_a_pair(
    database: LedgerDatabase,
) -> None:
    assert [end_run(database, BAD) for _ in range(2)] == [[], []]
    assert acme(database).failures_apart == 2
    assert end_run(database, BAD) == [PairQuarantined(job="count", tenant="acme", failures=3)]

    found = acme(database)
    assert found.quarantined_at == found.probed_at == database.clock()
    assert found.code_digest == OLD
    assert database.queries.statistics()["count", "birch"].quarantined_at is None


def test_what_an_outage_of_the_server_made_fail_is_not_counted(database: LedgerDatabase) -> None:
    end_run(database, BAD)
    for _ in range(4):
        end_run(database, BAD, server_fault=True)

    assert (acme(database).failures_apart, acme(database).quarantined_at) == (1, None)


def test_a_success_begins_the_row_again(database: LedgerDatabase) -> None:
    for outcomes in (BAD, BAD, WELL, BAD, BAD):
        assert end_run(database, outcomes) == []

    assert acme(database).failures_apart == 2


@pytest.mark.parametrize(
    "others", [{}, {"birch": Outcome.FAILED}, {"birch": Outcome.SKIPPED}, {"": Outcome.SUCCEEDED}]
)
def test_what_fails_everywhere_is_the_jobs_own_fault(
    database: LedgerDatabase, others: Mapping[str, Outcome]
) -> None:
    for _ in range(4):
        end_run(database, {"acme": Outcome.FAILED, **others})

    assert acme(database).failures_apart == 0


@pytest.mark.parametrize(
    ("outcome", "counted"),
    [
        (Outcome.FAILED, 1),
        (Outcome.TIMED_OUT, 1),
        (Outcome.STUCK, 1),
        (Outcome.SKIPPED, 0),
        (Outcome.CANCELLED, 0),
        (Outcome.INTERRUPTED, 0),
        (Outcome.TENANT_GONE, 0),
    ],
)
def test_only_what_says_something_of_the_pair_is_counted(
    database: LedgerDatabase, outcome: Outcome, counted: int
) -> None:
    end_run(database, {**BAD, "acme": outcome})

    assert acme(database).failures_apart == counted


def test_a_probe_that_fails_is_remembered_and_one_that_succeeds_releases(
    database: LedgerDatabase,
) -> None:
    for _ in range(3):
        end_run(database, BAD)
    since = database.clock()
    assert end_run(database, BAD) == []
    assert acme(database).quarantined_at == since
    assert acme(database).probed_at == database.clock()

    assert end_run(database, WELL) == [PairReleased(job="count", tenant="acme")]
    found = acme(database)
    assert (found.failures_apart, found.quarantined_at, found.code_digest) == (0, None, None)


def test_code_that_has_changed_is_judged_anew(database: LedgerDatabase) -> None:
    for _ in range(3):
        end_run(database, BAD)
    assert end_run(database, BAD, digest=NEW) == [PairReleased(job="count", tenant="acme")]
    assert acme(database).failures_apart == 1

    end_run(database, BAD, digest=NEW)
    assert end_run(database, BAD, digest=NEW) == [
        PairQuarantined(job="count", tenant="acme", failures=3)
    ]
    assert acme(database).code_digest == NEW


def test_nothing_is_counted_when_it_is_switched_off(database: LedgerDatabase) -> None:
    for _ in range(4):
        assert end_run(database, BAD, after=0) == []

    assert acme(database).failures_apart == 0
