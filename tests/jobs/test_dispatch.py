"""notifications.dispatch"""

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, update

from jobs.schema import job_items, notifications, outbox, users
from tests.jobs.rows import notice, user
from tests.jobs.tenant import S, TenantDatabase, ago

JOB = "notifications.dispatch"
NOTHING = {
    "messages": 0,
    "queued": 0,
    "suppressed": 0,
    "expired": 0,
    "waiting": 0,
    "errors": 0,
}
NINE = S + timedelta(hours=9)


def states(tenant: TenantDatabase) -> list[str]:
    return [row["state"] for row in tenant.rows(notifications)]


def test_notices_of_an_ordinary_user_are_sent_one_by_one(tenant: TenantDatabase) -> None:
    tenant.add(users, user(id=1, email="zoë@example.org"))
    tenant.add(
        notifications,
        notice(ago(hours=1), id=7, title="Hello 李", body="You are 🎁."),
        notice(S, id=8),
    )

    assert tenant.run(JOB) == NOTHING | {"queued": 2, "messages": 2}

    assert states(tenant) == ["queued", "queued"]
    first, second = tenant.rows(outbox)
    assert (first["dedupe_key"], second["dedupe_key"]) == ("notif:7", "notif:8")
    assert first["recipient"] == "zoë@example.org"
    assert (first["subject"], first["body"]) == ("Hello 李", "You are 🎁.")


def test_notices_of_a_digest_user_are_sent_together(tenant: TenantDatabase) -> None:
    tenant.add(users, user(id=1, digest=True, email="zoë@example.org"))
    tenant.add(
        notifications,
        *(notice(ago(hours=hours), title=f"Title {hours}") for hours in (1, 3, 2)),
    )

    assert tenant.run(JOB, slot=NINE) == NOTHING | {"queued": 3, "messages": 1}

    assert states(tenant) == ["queued"] * 3
    (message,) = tenant.rows(outbox)
    assert message["recipient"] == "zoë@example.org"
    assert message["dedupe_key"] == "digest:1:2026-03-01"
    assert message["subject"] == "3 notices"
    assert message["body"].splitlines() == ["Title 3", "Title 2", "Title 1"]
    assert [row["item"] for row in tenant.rows(job_items)] == ["digest:1:2026-03-01"]


def test_a_second_run_of_the_slot_writes_nothing(tenant: TenantDatabase) -> None:
    tenant.add(users, user(id=1), user(id=2, digest=True), user(id=3, notify_email=False))
    rows = [notice(ago(hours=hours), user_id) for hours in (1, 80) for user_id in (1, 2, 3)]
    tenant.add(notifications, *rows)
    assert tenant.run(JOB, slot=NINE) == NOTHING | {
        "queued": 2,
        "messages": 2,
        "suppressed": 1,
        "expired": 3,
    }
    before = tenant.content()

    assert tenant.run(JOB, slot=NINE) == NOTHING
    assert tenant.content() == before


@pytest.mark.parametrize(
    ("created_at", "state"),
    [
        (ago(hours=72), "queued"),
        (ago(hours=72, seconds=1), "expired"),
        (S, "queued"),
        (ago(seconds=-1), "new"),
    ],
)
def test_a_notice_is_sent_up_to_three_days_after_it_was_made(
    tenant: TenantDatabase, created_at, state
) -> None:
    tenant.add(users, user(id=1))
    tenant.add(notifications, notice(created_at))

    counters = tenant.run(JOB)

    assert states(tenant) == [state]
    assert (counters["queued"], counters["expired"]) == (state == "queued", state == "expired")
    assert len(tenant.rows(outbox)) == counters["messages"] == counters["queued"]


def test_how_old_a_notice_may_be_can_be_set(tenant: TenantDatabase) -> None:
    tenant.add(users, user(id=1))
    tenant.add(notifications, notice(ago(hours=1)), notice(ago(hours=1, seconds=1)))

    tenant.run(JOB, max_age_h=1)

    assert states(tenant) == ["queued", "expired"]


@pytest.mark.parametrize("digest", [False, True])
@pytest.mark.parametrize(
    ("reader", "read_at"),
    [
        pytest.param({}, ago(minutes=1), id="read"),
        pytest.param({"status": "disabled"}, None, id="disabled"),
        pytest.param({"status": "invited"}, None, id="invited"),
        pytest.param({"notify_email": False}, None, id="wants no e-mail"),
        pytest.param({"notify_email": False, "email": "nobody"}, None, id="has no address"),
    ],
)
def test_a_notice_that_nobody_wants_is_suppressed(
    tenant: TenantDatabase, reader, read_at, digest
) -> None:
    tenant.add(users, user(id=1, digest=digest, **reader))
    tenant.add(notifications, notice(ago(hours=1), read_at=read_at))

    assert tenant.run(JOB) == NOTHING | {"suppressed": 1}
    assert states(tenant) == ["suppressed"]
    assert tenant.rows(outbox) == []


def test_what_is_too_old_expires_even_if_it_was_read(tenant: TenantDatabase) -> None:
    tenant.add(users, user(id=1, notify_email=False))
    tenant.add(notifications, notice(ago(hours=73), read_at=ago(hours=1)))

    assert tenant.run(JOB) == NOTHING | {"expired": 1}


@pytest.mark.parametrize("state", ["queued", "suppressed", "expired"])
def test_what_is_settled_stays_so(tenant: TenantDatabase, state) -> None:
    tenant.add(users, user(id=1))
    tenant.add(notifications, notice(ago(hours=1), state=state), notice(ago(hours=80), state=state))
    before = tenant.content()

    assert tenant.run(JOB) == NOTHING
    assert tenant.content() == before


@pytest.mark.parametrize(
    ("zone", "tenants_zone", "sent_from"),
    [
        ("UTC", "UTC", "2026-03-01T08:00"),
        (None, "UTC", "2026-03-01T08:00"),
        (None, "Asia/Kolkata", "2026-03-01T02:30"),
        ("", "Asia/Kolkata", "2026-03-01T02:30"),
        ("Europe/Berlin", "Asia/Kolkata", "2026-03-01T07:00"),
        ("America/New_York", "UTC", "2026-03-01T13:00"),
        # Summer begins there on the 8th, and on the 29th in Berlin.
        ("America/New_York", "UTC", "2026-03-08T12:00"),
        ("Europe/Berlin", "UTC", "2026-03-29T06:00"),
        # And ends with a change of half an hour on 2026-04-05.
        ("Australia/Lord_Howe", "UTC", "2026-04-04T21:30"),
    ],
)
def test_a_digest_waits_for_its_hour_in_the_users_zone(
    tenant: TenantDatabase, zone, tenants_zone, sent_from
) -> None:
    slot = datetime.fromisoformat(f"{sent_from}+00:00")
    before = slot - timedelta(seconds=1)
    tenant.add(users, user(id=1, digest=True, timezone=zone))
    tenant.add(notifications, notice(slot - timedelta(hours=1)))

    assert tenant.run(JOB, slot=before, zone=tenants_zone) == NOTHING | {"waiting": 1}
    assert tenant.run(JOB, slot=slot, zone=tenants_zone) == NOTHING | {"queued": 1, "messages": 1}


def test_the_hour_of_digests_can_be_set(tenant: TenantDatabase) -> None:
    tenant.add(users, user(id=1, digest=True))
    tenant.add(notifications, notice(ago(hours=1)))

    assert tenant.run(JOB, slot=NINE, digest_hour=10)["waiting"] == 1
    assert tenant.run(JOB, slot=NINE, digest_hour=9)["queued"] == 1


def test_what_comes_after_the_digest_waits_for_the_users_next_day(tenant: TenantDatabase) -> None:
    # There a day ends at 10:00 UTC, in the middle of this job's day.
    tenant.add(users, user(id=1, digest=True, timezone="Pacific/Kiritimati"))
    tenant.add(notifications, notice(ago(hours=1)))
    assert tenant.run(JOB)["messages"] == 1
    tenant.add(notifications, notice(S), notice(S))
    evening, next_morning = S + timedelta(hours=9, minutes=45), S + timedelta(hours=18)

    assert tenant.run(JOB, slot=evening) == NOTHING | {"waiting": 2}
    assert tenant.run(JOB, slot=next_morning) == NOTHING | {"queued": 2, "messages": 1}

    assert [row["dedupe_key"] for row in tenant.rows(outbox)] == [
        "digest:1:2026-03-01",
        "digest:1:2026-03-02",
    ]


def test_each_digest_user_gets_their_own(tenant: TenantDatabase) -> None:
    tenant.add(users, user(id=1, digest=True), user(id=2, digest=True), user(id=3))
    tenant.add(notifications, *(notice(ago(hours=1), user_id) for user_id in (1, 2, 2, 3, 3, 3)))

    assert tenant.run(JOB, slot=NINE) == NOTHING | {"queued": 6, "messages": 5}
    assert [row["subject"] for row in tenant.rows(outbox)][3:] == ["1 notice", "2 notices"]


@pytest.mark.parametrize(
    ("reader", "item"),
    [
        pytest.param({"email": "nobody"}, "notif:1", id="bad address"),
        pytest.param({"email": "nobody", "digest": True}, "digest:1", id="bad address, digest"),
        pytest.param({"timezone": "Mars/Olympus", "digest": True}, "digest:1", id="bad zone"),
        pytest.param({"timezone": "America", "digest": True}, "digest:1", id="half a zone"),
    ],
)
def test_a_user_with_bad_data_is_an_error_and_the_others_are_told(
    tenant: TenantDatabase, reader: dict[str, Any], item
) -> None:
    tenant.add(users, user(id=1, **reader), user(id=2), user(id=3, digest=True))
    tenant.add(notifications, *(notice(ago(hours=1), number, id=number) for number in (1, 2, 3)))

    assert tenant.run(JOB, slot=NINE) == NOTHING | {"queued": 2, "messages": 2, "errors": 1}

    assert states(tenant) == ["new", "queued", "queued"]
    (error,) = [row for row in tenant.rows(job_items) if row["state"] == "error"]
    assert error["item"] == item
    before = tenant.content()
    assert tenant.run(JOB, slot=NINE) == NOTHING | {"errors": 1}
    assert tenant.content() == before


def test_a_user_whose_data_is_mended_is_told(tenant: TenantDatabase) -> None:
    tenant.add(users, user(id=1, digest=True, timezone="Mars/Olympus"))
    tenant.add(notifications, notice(ago(hours=1)))
    tenant.run(JOB, slot=NINE)
    with tenant.engine.begin() as connection:
        connection.execute(update(users).values(timezone="UTC"))

    counters = tenant.run(JOB, slot=NINE + timedelta(minutes=15))

    assert counters == NOTHING | {"queued": 1, "messages": 1}
    assert [row["state"] for row in tenant.rows(job_items)] == ["done"]


def test_the_error_of_a_notice_that_expires_is_forgotten(tenant: TenantDatabase) -> None:
    tenant.add(users, user(id=1, email="nobody"))
    tenant.add(notifications, notice(ago(hours=72)))
    assert tenant.run(JOB)["errors"] == 1

    counters = tenant.run(JOB, slot=S + timedelta(minutes=15))

    assert counters == NOTHING | {"expired": 1}
    assert tenant.rows(job_items) == []


def test_a_single_notice_needs_no_zone(tenant: TenantDatabase) -> None:
    tenant.add(users, user(id=1, timezone="Mars/Olympus"))
    tenant.add(notifications, notice(ago(hours=1)))

    assert tenant.run(JOB) == NOTHING | {"queued": 1, "messages": 1}


def test_a_notice_that_is_read_meanwhile_is_not_sent(tenant: TenantDatabase) -> None:
    tenant.add(users, user(id=1))
    tenant.add(notifications, notice(ago(hours=1)), notice(ago(hours=1)))
    (first, _) = tenant.rows(notifications)

    def read(connection, _cursor, statement, *_rest) -> None:
        # Just before the job's own UPDATE, after it has chosen its notices.
        if statement.startswith("UPDATE notifications SET state"):
            done = update(notifications).where(notifications.c.id == first["id"])
            connection.execute(done.values(read_at=S))

    event.listen(tenant.engine, "before_cursor_execute", read)
    try:
        counters = tenant.run(JOB)
    finally:
        event.remove(tenant.engine, "before_cursor_execute", read)

    assert counters == NOTHING | {"queued": 1, "messages": 1}
    assert states(tenant) == ["new", "queued"]


def test_more_notices_than_one_batch_holds_are_all_settled(tenant: TenantDatabase) -> None:
    tenant.add(users, user(id=1, digest=True), user(id=2, status="disabled"))
    tenant.add(notifications, *(notice(ago(hours=1), 1 + n % 2) for n in range(1002)))

    assert tenant.run(JOB, slot=NINE) == NOTHING | {
        "queued": 501,
        "messages": 1,
        "suppressed": 501,
    }


def test_nothing_to_tell_is_well(tenant: TenantDatabase) -> None:
    assert tenant.run(JOB) == NOTHING
