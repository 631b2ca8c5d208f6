"""Old history goes, a batch at a time; what arbitrates, counts or orders stays."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert

from cronrunner.ledger import pruning
from cronrunner.ledger.store import Ledger
from cronrunner.ledger.tables import fleet_outbox
from cronrunner.model import Key, Outcome, Slot
from tests.conformance.conftest import LedgerDatabase, key, result_of
from tests.conformance.holder import report, this_run

TENANTS = ("acme", "birch", "cedar")


def a_run(database: LedgerDatabase, name: str, slot: Slot, *, ended: bool = True) -> None:
    """Do a slot on each tenant, the last of them in two attempts."""
    ledger = database.begin(name)
    keys = [key(tenant, slot_key=slot.key) for tenant in TENANTS]
    claims = ledger.claim(keys)
    lost = result_of(claims, keys[-1], run=name, outcome=Outcome.FAILED, error="x", final=False)
    ledger.record(lost)
    for each in keys:
        result = result_of(claims, each, run=name)
        attempt = 2 if each == keys[-1] else 1
        ledger.record(replace(result, request=replace(result.request, attempt=attempt)))
    ledger.keep_prepared("count", slot.key, "{}")
    ledger.flush()
    if ended:
        ledger.finish_run(report(this_run(name)), discovered={})


def nights(database: LedgerDatabase, count: int) -> list[Slot]:
    """Run once a day, and stand on the day after the last."""
    slots = []
    for n in range(count):
        slots.append(Slot.scheduled(database.clock()))
        a_run(database, f"r{n}", slots[-1])
        database.clock.forward(days=1)
    return slots


def rows(database: LedgerDatabase) -> dict[str, int]:
    tables = ("runs", "executions", "attempts", "claims", "prepared")
    return {name: database.rows(f"SELECT COUNT(*) FROM {name}")[0][0] for name in tables}


def test_what_is_older_goes_and_what_is_younger_stays(database: LedgerDatabase) -> None:
    slots = nights(database, 4)
    before = rows(database)
    statistics = database.queries.statistics()
    removed = database.opened[0].prune(slots[2].at)

    after = rows(database)
    assert after == {"runs": 2, "executions": 6, "attempts": 8, "claims": 6, "prepared": 2}
    assert removed == sum(before.values()) - sum(after.values())
    assert sorted(run["run"] for run in database.queries.runs(9)) == ["r2", "r3"]
    assert database.queries.statistics() == statistics
    assert database.opened[0].prune(slots[2].at) == 0


def test_of_each_pair_the_claim_of_the_newest_slot_stays(database: LedgerDatabase) -> None:
    slots = nights(database, 3)
    ledger = database.opened[0]
    ledger.prune(database.clock())

    assert rows(database) == {"runs": 0, "executions": 0, "attempts": 0, "claims": 3, "prepared": 0}
    newest = database.queries.newest_closed_slots()
    assert newest == {("count", tenant): slots[2].at for tenant in TENANTS}
    again = database.begin("again").claim([key("acme", slot_key=each.key) for each in slots])
    assert list(again.duplicates) == [key("acme", slot_key=slots[2].key)]


def test_of_slots_that_nobody_scheduled_nothing_stays(database: LedgerDatabase) -> None:
    at = database.clock()
    a_run(database, "r1", Slot.of_run("r1", at))
    database.clock.forward(days=1)
    database.opened[0].prune(database.clock())

    assert set(rows(database).values()) == {0}


def test_a_run_that_goes_on_or_holds_something_stays(database: LedgerDatabase) -> None:
    at = database.clock()
    a_run(database, "alive", Slot.scheduled(at), ended=False)
    holding = database.begin("holding")
    stuck = holding.claim([key("dogwood")])
    holding.record(
        result_of(stuck, key("dogwood"), run="holding", outcome=Outcome.STUCK, error="stuck")
    )
    holding.finish_run(report(this_run("holding")), discovered={})
    database.clock.forward(seconds=10)
    database.opened[0].prune(database.clock())

    assert sorted(run["run"] for run in database.queries.runs(9)) == ["alive", "holding"]


def test_what_a_dead_run_has_left_open_goes_with_time(database: LedgerDatabase) -> None:
    dead: dict[str, Any] = {"boot": "another boot", "host": "elsewhere"}
    database.begin("dead", **dead).claim([key("acme"), key("birch")])
    database.clock.forward(days=1)
    ledger = database.begin("next")
    assert rows(database)["claims"] == 2
    ledger.prune(database.clock())

    assert rows(database)["claims"] == 0
    assert [run["run"] for run in database.queries.runs(9)] == ["next"]


def test_messages_of_the_fleet_go_when_they_are_settled(database: LedgerDatabase) -> None:
    ledger = database.open()
    now = database.clock()
    for age in (0, 1):
        for status in ("pending", "sending", "sent", "dead", "cancelled"):
            queue(ledger, f"{status}{age}", status, now - timedelta(seconds=age))
    queue(ledger, "late", "sent", now - timedelta(days=100), sent_at=now)
    assert ledger.prune(now) == 3

    left = [key for (key,) in database.rows("SELECT dedupe_key FROM fleet_outbox ORDER BY id")]
    settled_now = ["sent0", "dead0", "cancelled0"]
    assert left == ["pending0", "sending0", *settled_now, "pending1", "sending1", "late"]


def queue(
    ledger: Ledger, name: str, status: str, at: datetime, sent_at: datetime | None = None
) -> None:
    message = {
        "dedupe_key": name, "channel": "email", "recipient": "a@example.org", "subject": "",
        "body": "", "source_job": "test", "status": status, "attempts": 0, "not_before": at,
        "created_at": at, "sent_at": sent_at,
    }  # fmt: skip
    with ledger._engine.begin() as connection:
        connection.execute(insert(fleet_outbox).values(message))


def test_it_is_done_in_batches_that_can_be_stopped(
    database: LedgerDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "BATCH", 2)
    nights(database, 2)
    before = sum(rows(database).values())
    asked: list[Any] = []

    def is_over() -> bool:
        asked.append(None)
        return len(asked) > 3

    assert database.opened[0].prune(database.clock(), is_over=is_over) <= 6
    assert sum(rows(database).values()) >= before - 6
    database.opened[0].prune(database.clock() + timedelta(days=1))
    assert rows(database)["executions"] == 0


def test_nothing_of_another_run_goes_with_it(database: LedgerDatabase) -> None:
    slots = nights(database, 1)
    a_run(database, "young", Slot.scheduled(slots[0].at + timedelta(days=1)))
    other = Key(job="other", tenant="acme", slot_key=slots[0].key)
    database.opened[-1].prune(database.clock() - timedelta(hours=1))

    assert [run["run"] for run in database.queries.runs(9)] == ["young"]
    assert database.begin("r9").claim([other]).granted == {other: 1}
