"""exchanges.remind"""

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from jobs.schema import exchange_participants, exchanges, job_items, outbox
from tests.jobs.rows import exchange, participant
from tests.jobs.tenant import S, TenantDatabase, ago

JOB = "exchanges.remind"
NOTHING = {"due": 0, "messages": 0, "missed": 0, "errors": 0}


def utc(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}+00:00")


def matched(**values: Any) -> dict[str, Any]:
    usual = {"state": "matched", "timezone": "UTC", "exchange_at": ago(days=-7)}
    return exchange(**{**usual, **values})


#: In New York at 18:00: EST on the day itself, and EDT a week before.
AUTUMN = {"timezone": "America/New_York", "exchange_at": utc("2025-11-05T23:00")}
WEEK_BEFORE = utc("2025-10-29T22:00")


def test_a_week_before_its_hour_is_the_one_on_the_clock(tenant: TenantDatabase) -> None:
    tenant.add(exchanges, matched(id=5, name="Office 🎁", **AUTUMN))
    tenant.add(exchange_participants, participant(5, id=8, email="zoë@example.org"))

    assert tenant.run(JOB, slot=WEEK_BEFORE - timedelta(seconds=1)) == NOTHING
    assert tenant.run(JOB, slot=WEEK_BEFORE) == NOTHING | {"due": 1, "messages": 1}

    (mark,) = tenant.rows(job_items)
    assert mark["item"] == "5:7:2025-10-29T22:00:00Z"
    (message,) = tenant.rows(outbox)
    assert message["recipient"] == "zoë@example.org"
    assert message["dedupe_key"] == "remind:5:7:2025-10-29T22:00:00Z:8"
    assert message["subject"] == "Office 🎁 in 7 days"
    assert message["body"] == "Office 🎁 is on 2025-11-05 at 18:00 (America/New_York)."


def test_a_second_run_of_the_slot_writes_nothing(tenant: TenantDatabase) -> None:
    tenant.add(exchanges, matched(id=1), matched(id=2, timezone="Mars/Olympus"))
    tenant.add(exchange_participants, participant(1), participant(1, email="nobody"))
    assert tenant.run(JOB) == {"due": 1, "messages": 1, "missed": 0, "errors": 2}
    before = tenant.content()

    assert tenant.run(JOB) == NOTHING | {"errors": 1}
    assert tenant.content() == before


@pytest.mark.parametrize(
    ("late", "counted"),
    [
        (0, {"due": 1, "messages": 1}),
        (3600, {"due": 1, "messages": 1}),
        (3601, {"missed": 1}),
        (4500, {"missed": 1}),
        (4501, {}),
    ],
)
def test_a_late_reminder_is_sent_within_an_hour_and_missed_in_the_quarter_after_it(
    tenant: TenantDatabase, late, counted
) -> None:
    tenant.add(exchanges, matched(id=1, **AUTUMN))
    tenant.add(exchange_participants, participant(1))

    counters = tenant.run(JOB, slot=WEEK_BEFORE + timedelta(seconds=late))

    assert counters == NOTHING | counted


@pytest.mark.parametrize("first", [0, 4, 5])
def test_on_the_grid_of_its_slots_a_reminder_is_sent_or_missed_once(
    tenant: TenantDatabase, first
) -> None:
    # At seven minutes past: between two slots.
    tenant.add(exchanges, matched(id=1, exchange_at=ago(days=-7, minutes=-7)))
    tenant.add(exchange_participants, participant(1))
    slots = [S + timedelta(minutes=15 * number) for number in range(first, 12)]

    total = [tenant.run(JOB, slot=slot) for slot in slots]

    due, missed = (sum(counters[name] for counters in total) for name in ("due", "missed"))
    assert (due, missed) == ((1, 0) if first < 5 else (0, 1))


@pytest.mark.parametrize(
    ("zone", "exchange_at", "days", "at"),
    [
        # Each at 18:00 on the clock on the wall, on both sides of a change of the clocks.
        ("America/New_York", "2026-03-10T22:00", 7, "2026-03-03T23:00"),
        ("America/New_York", "2026-03-10T22:00", 3, "2026-03-07T23:00"),
        ("America/New_York", "2026-03-10T22:00", 1, "2026-03-09T22:00"),
        ("America/New_York", "2025-11-04T23:00", 7, "2025-10-28T22:00"),
        ("America/New_York", "2025-11-04T23:00", 3, "2025-11-01T22:00"),
        ("America/New_York", "2025-11-04T23:00", 1, "2025-11-03T23:00"),
        ("Europe/Berlin", "2026-03-31T16:00", 7, "2026-03-24T17:00"),
        ("Europe/Berlin", "2026-03-31T16:00", 3, "2026-03-28T17:00"),
        ("Europe/Berlin", "2026-03-31T16:00", 1, "2026-03-30T16:00"),
        ("Europe/Berlin", "2025-10-28T17:00", 7, "2025-10-21T16:00"),
        ("Europe/Berlin", "2025-10-28T17:00", 3, "2025-10-25T16:00"),
        ("Europe/Berlin", "2025-10-28T17:00", 1, "2025-10-27T17:00"),
        ("Australia/Lord_Howe", "2025-10-07T07:00", 7, "2025-09-30T07:30"),
        ("Australia/Lord_Howe", "2025-10-07T07:00", 3, "2025-10-04T07:30"),
        ("Australia/Lord_Howe", "2025-10-07T07:00", 1, "2025-10-06T07:00"),
        ("Australia/Lord_Howe", "2026-04-07T07:30", 7, "2026-03-31T07:00"),
        ("Australia/Lord_Howe", "2026-04-07T07:30", 3, "2026-04-04T07:00"),
        ("Australia/Lord_Howe", "2026-04-07T07:30", 1, "2026-04-06T07:30"),
        # At 02:30, which was skipped in Berlin: after the gap, at 03:30.
        ("Europe/Berlin", "2026-03-30T00:30", 1, "2026-03-29T01:30"),
        # At 02:30, which came twice in Berlin: the first.
        ("Europe/Berlin", "2025-10-27T01:30", 1, "2025-10-26T00:30"),
        # At 02:15, the half hour that was skipped on Lord Howe: at 02:45.
        ("Australia/Lord_Howe", "2025-10-05T15:15", 1, "2025-10-04T15:45"),
        # At 01:45, the half hour that came twice on Lord Howe: the first.
        ("Australia/Lord_Howe", "2026-04-05T15:15", 1, "2026-04-04T14:45"),
    ],
)
def test_over_a_change_of_the_clocks_the_local_hour_is_the_same(
    tenant: TenantDatabase, zone, exchange_at, days, at
) -> None:
    tenant.add(exchanges, matched(id=1, timezone=zone, exchange_at=utc(exchange_at)))
    tenant.add(exchange_participants, participant(1))

    assert tenant.run(JOB, slot=utc(at) - timedelta(seconds=1), grace_s=0) == NOTHING
    assert tenant.run(JOB, slot=utc(at), grace_s=0) == NOTHING | {"due": 1, "messages": 1}

    (mark,) = tenant.rows(job_items)
    assert mark["item"] == f"1:{days}:{at}:00Z"


@pytest.mark.parametrize(
    ("own", "reminded"),
    [
        (None, ["7", "3", "1"]),
        ([2], ["2"]),
        ([1, 2, 2, 1], ["2", "1"]),
        ([], []),
    ],
)
def test_an_exchange_may_have_days_of_its_own(tenant: TenantDatabase, own, reminded) -> None:
    tenant.add(exchanges, matched(id=1, reminder_days=own))
    tenant.add(exchange_participants, participant(1))

    for day in range(8):
        tenant.run(JOB, slot=S + timedelta(days=day))

    assert [row["item"].split(":")[1] for row in tenant.rows(job_items)] == reminded
    assert len(tenant.rows(outbox)) == len(reminded)


def test_a_day_that_is_given_twice_counts_once(tenant: TenantDatabase) -> None:
    tenant.add(exchanges, matched(id=1, reminder_days=[7, 7]))

    assert tenant.run(JOB, slot=S + timedelta(seconds=3601))["missed"] == 1


def test_the_usual_days_can_be_set(tenant: TenantDatabase) -> None:
    tenant.add(exchanges, matched(id=1, exchange_at=ago(days=-10)))

    assert tenant.run(JOB)["due"] == 0
    assert tenant.run(JOB, days="10,5")["due"] == 1


@pytest.mark.parametrize(
    "days", [[0], [-1], [7, 1.0], [True], ["7"], 7, "7", {"7": 1}, [7, None], [99_999_999]]
)
def test_days_that_are_none_are_an_error_and_the_other_exchanges_are_done(
    tenant: TenantDatabase, days
) -> None:
    tenant.add(exchanges, matched(id=1, reminder_days=days), matched(id=2))
    tenant.add(exchange_participants, participant(1), participant(2))

    assert tenant.run(JOB) == {"due": 1, "messages": 1, "missed": 0, "errors": 1}

    error, mark = tenant.rows(job_items)
    assert (error["item"], error["state"]) == ("1", "error")
    assert mark["item"].startswith("2:7:")


@pytest.mark.parametrize("zone", ["Mars/Olympus", "America", ""])
def test_a_zone_that_does_not_exist_is_an_error(tenant: TenantDatabase, zone) -> None:
    tenant.add(exchanges, matched(id=1, timezone=zone))

    assert tenant.run(JOB) == NOTHING | {"errors": 1}


def test_an_error_ends_with_its_exchange(tenant: TenantDatabase) -> None:
    tenant.add(exchanges, matched(id=1, timezone="Mars/Olympus"))
    tenant.run(JOB)
    with tenant.engine.begin() as connection:
        connection.execute(update(exchanges).values(state="completed"))

    assert tenant.run(JOB, slot=S + timedelta(minutes=15)) == NOTHING
    assert tenant.rows(job_items) == []


@pytest.mark.parametrize("state", ["draft", "open", "completed"])
def test_only_matched_exchanges_are_reminded_of(tenant: TenantDatabase, state) -> None:
    tenant.add(exchanges, matched(id=1, state=state), matched(id=2, state=state, timezone="?"))
    tenant.add(exchange_participants, participant(1))

    assert tenant.run(JOB) == NOTHING


def test_who_has_withdrawn_or_wants_none_gets_none(tenant: TenantDatabase) -> None:
    tenant.add(exchanges, matched(id=1), matched(id=2, state="draft"))
    tenant.add(
        exchange_participants,
        participant(1, email="in@example.org"),
        participant(1, withdrawn_at=ago(days=1)),
        participant(1, reminder_enabled=False),
        participant(2),
    )

    assert tenant.run(JOB) == NOTHING | {"due": 1, "messages": 1}
    assert [row["recipient"] for row in tenant.rows(outbox)] == ["in@example.org"]


def test_without_participants_it_is_done_as_well(tenant: TenantDatabase) -> None:
    tenant.add(exchanges, matched(id=1))

    assert tenant.run(JOB) == NOTHING | {"due": 1}
    tenant.add(exchange_participants, participant(1))
    assert tenant.run(JOB, slot=S + timedelta(minutes=15)) == NOTHING


def test_a_bad_address_is_an_error_once_and_the_others_are_reminded(
    tenant: TenantDatabase,
) -> None:
    tenant.add(exchanges, matched(id=1))
    tenant.add(
        exchange_participants,
        participant(1, id=1),
        participant(1, id=2, email="nobody"),
        participant(1, id=3),
    )

    assert tenant.run(JOB) == {"due": 1, "messages": 2, "missed": 0, "errors": 1}
    assert tenant.run(JOB, slot=S + timedelta(minutes=15)) == NOTHING

    error, mark = tenant.rows(job_items)
    assert (error["item"], error["attempts"]) == ("1:7:2026-03-01T00:00:00Z:2", 1)
    assert mark["state"] == "done"


def test_everybody_is_told_for_whom_their_present_is(tenant: TenantDatabase) -> None:
    tenant.add(exchanges, matched(id=1), matched(id=2, state="draft"))
    tenant.add(
        exchange_participants,
        participant(1, id=1, giftee_id=2),
        participant(1, id=2, name="Åsa", giftee_id=3),
        # Of another exchange: nobody for whom somebody here has a present.
        participant(2, id=3, name="Ole"),
    )

    tenant.run(JOB)

    first, second = (row["body"].splitlines() for row in tenant.rows(outbox))
    assert first[1:] == ["Your present is for Åsa."]
    assert second[1:] == []


def test_an_exchange_that_is_moved_is_reminded_of_anew(tenant: TenantDatabase) -> None:
    tenant.add(exchanges, matched(id=1))
    tenant.add(exchange_participants, participant(1))
    tenant.run(JOB)
    with tenant.engine.begin() as connection:
        connection.execute(update(exchanges).values(exchange_at=ago(days=-8)))

    assert tenant.run(JOB, slot=S + timedelta(days=1)) == NOTHING | {"due": 1, "messages": 1}


def test_nobody_is_reminded_of_an_exchange_that_has_begun(tenant: TenantDatabase) -> None:
    tenant.add(exchanges, matched(id=1, reminder_days=[1], exchange_at=ago(days=-1)))
    tenant.add(exchange_participants, participant(1))
    two_days = 2 * 86_400

    assert tenant.run(JOB, slot=S + timedelta(days=1), grace_s=two_days) == NOTHING
    just_before = S + timedelta(days=1, seconds=-1)
    assert tenant.run(JOB, slot=just_before, grace_s=two_days)["due"] == 1


def test_the_day_before_is_called_tomorrow(tenant: TenantDatabase) -> None:
    tenant.add(exchanges, matched(id=1, name="Office", exchange_at=ago(days=-1)))
    tenant.add(exchange_participants, participant(1))

    tenant.run(JOB)

    assert [row["subject"] for row in tenant.rows(outbox)] == ["Office tomorrow"]


def test_more_exchanges_than_one_batch_holds_are_all_looked_at(tenant: TenantDatabase) -> None:
    tenant.add(exchanges, *(matched() for _ in range(501)))

    assert tenant.run(JOB) == NOTHING | {"due": 501}
