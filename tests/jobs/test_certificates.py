"""alerts.certificates, and what the alerts about all kinds of assets have in common"""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from jobs.schema import expiring_assets, job_items, outbox, users
from tests.jobs.rows import admin, asset, user
from tests.jobs.tenant import S, TenantDatabase, ago

JOB = "alerts.certificates"
NOTHING = {
    "checked": 0,
    "alerted": 0,
    "expired": 0,
    "no_recipient": 0,
    "too_old": 0,
    "errors": 0,
}
TODAY = date(2026, 3, 1)


def certificate(days_left: int | None = None, **values: Any) -> dict[str, Any]:
    ends = None if days_left is None else TODAY + timedelta(days=days_left)
    return asset("certificate", **{"expires_on": ends, **values})


def marks(tenant: TenantDatabase) -> list[str]:
    return [row["item"] for row in tenant.rows(job_items) if row["state"] == "done"]


def subjects(tenant: TenantDatabase) -> list[str]:
    return [row["subject"] for row in tenant.rows(outbox)]


def test_a_certificate_with_a_week_left_is_alerted(tenant: TenantDatabase) -> None:
    tenant.add(users, admin(id=1, email="boss@example.org"))
    ends = datetime(2026, 3, 8, 10, tzinfo=UTC)
    tenant.add(expiring_assets, certificate(id=7, name="www 🎁", expires_at=ends))

    assert tenant.run(JOB) == NOTHING | {"checked": 1, "alerted": 1}

    assert marks(tenant) == ["7:2026-03-08:7"]
    (message,) = tenant.rows(outbox)
    assert message["recipient"] == "boss@example.org"
    assert message["channel"] == "email"
    assert message["source_job"] == JOB
    assert message["subject"] == "[high] Certificate www 🎁 expires in 7 days"
    assert "2026-03-08" in message["body"]


def test_a_second_run_of_the_slot_writes_nothing(tenant: TenantDatabase) -> None:
    tenant.add(users, admin(id=1))
    tenant.add(expiring_assets, certificate(7), certificate(-1), certificate(-31), certificate())
    assert tenant.run(JOB) == NOTHING | {
        "checked": 4,
        "alerted": 2,
        "expired": 1,
        "too_old": 1,
        "errors": 1,
    }
    before = tenant.content()

    assert tenant.run(JOB) == NOTHING | {"checked": 4, "too_old": 1, "errors": 1}
    assert tenant.content() == before


@pytest.mark.parametrize(
    ("days_left", "bucket", "severity"),
    [
        (61, None, ""),
        (60, "60", "low"),
        (31, "60", "low"),
        (30, "30", "low"),
        (15, "30", "low"),
        (14, "14", "medium"),
        (8, "14", "medium"),
        (7, "7", "high"),
        (4, "7", "high"),
        (3, "3", "high"),
        (2, "3", "high"),
        (1, "1", "critical"),
        (0, "0", "critical"),
        (-1, "expired", "critical"),
        (-30, "expired", "critical"),
        (-31, None, ""),
    ],
)
def test_the_bucket_is_the_smallest_threshold_not_below_the_days_left(
    tenant: TenantDatabase, days_left, bucket, severity
) -> None:
    tenant.add(users, admin(id=1))
    tenant.add(expiring_assets, certificate(days_left, id=1))
    ends = TODAY + timedelta(days=days_left)

    tenant.run(JOB)

    assert marks(tenant) == ([f"1:{ends}:{bucket}"] if bucket else [])
    assert [subject.split()[0] for subject in subjects(tenant)] == (
        [f"[{severity}]"] if bucket else []
    )


def test_a_bucket_is_alerted_once_and_missed_days_bring_no_burst(tenant: TenantDatabase) -> None:
    tenant.add(users, admin(id=1))
    tenant.add(expiring_assets, certificate(20, id=1))
    counted = [tenant.run(JOB, slot=S + timedelta(days=day))["alerted"] for day in (0, 1, 15, 16)]

    # 20 and 19 days left are in the bucket of 30, and then 5 and 4 in that of 7.
    assert counted == [1, 0, 1, 0]
    assert marks(tenant) == ["1:2026-03-21:30", "1:2026-03-21:7"]


def test_a_certificate_within_a_bucket_that_is_marked_is_left_alone(
    tenant: TenantDatabase,
) -> None:
    tenant.add(users, admin(id=1))
    tenant.add(expiring_assets, certificate(5, id=1))
    done = {"job": JOB, "item": "1:2026-03-06:7", "state": "done", "slot": ago(days=2)}
    tenant.add(job_items, {**done, "attempts": 1})

    assert tenant.run(JOB) == NOTHING | {"checked": 1}
    assert tenant.rows(outbox) == []


def test_another_end_date_is_alerted_anew(tenant: TenantDatabase) -> None:
    tenant.add(users, admin(id=1))
    tenant.add(expiring_assets, certificate(5, id=1))
    tenant.run(JOB)
    with tenant.engine.begin() as connection:
        connection.execute(update(expiring_assets).values(expires_on=date(2026, 3, 7)))

    assert tenant.run(JOB)["alerted"] == 1
    assert marks(tenant) == ["1:2026-03-06:7", "1:2026-03-07:7"]


@pytest.mark.parametrize(
    ("zone", "expires_at", "left"),
    [
        # Local dates of both: the end is on the 8th at 01:00, and today is the 1st.
        pytest.param("UTC", "2026-03-08T01:00", 7, id="UTC"),
        # On the 7th at 20:00, and today is the 28th of February.
        pytest.param("America/New_York", "2026-03-08T01:00", 7, id="New York"),
        # On the 8th at 00:00 and 23:59:59: still today's date on the wall is the 28th.
        pytest.param("America/New_York", "2026-03-08T05:00", 8, id="New York, midnight"),
        pytest.param("America/New_York", "2026-03-08T04:59:59", 7, id="New York, before"),
        # On the 8th, with today the 1st.
        pytest.param("Pacific/Kiritimati", "2026-03-08T09:59:59", 7, id="Kiritimati"),
        pytest.param("Pacific/Kiritimati", "2026-03-08T10:00", 8, id="Kiritimati, midnight"),
    ],
)
def test_days_are_counted_in_the_tenants_calendar(
    tenant: TenantDatabase, zone, expires_at, left
) -> None:
    tenant.add(users, admin(id=1))
    moment = datetime.fromisoformat(f"{expires_at}+00:00")
    tenant.add(expiring_assets, certificate(expires_at=moment))

    tenant.run(JOB, zone=zone)

    assert subjects(tenant)[0].endswith(f"expires in {left} days")


def test_the_instant_of_the_end_goes_before_its_date(tenant: TenantDatabase) -> None:
    tenant.add(users, admin(id=1))
    tenant.add(expiring_assets, certificate(200, expires_at=S + timedelta(days=3)))

    tenant.run(JOB)

    assert subjects(tenant) == ["[high] Certificate Zoë 李 🎁 expires in 3 days"]


def test_a_certificate_that_lasts_for_ever_is_no_error(tenant: TenantDatabase) -> None:
    never = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    tenant.add(expiring_assets, certificate(expires_at=never))

    assert tenant.run(JOB, zone="Pacific/Kiritimati") == NOTHING | {"checked": 1}


def test_other_kinds_and_cancelled_ones_are_left_alone(tenant: TenantDatabase) -> None:
    tenant.add(users, admin(id=1))
    tenant.add(
        expiring_assets,
        asset("credential", expires_on=TODAY),
        certificate(1, cancelled_at=ago(days=1)),
    )

    assert tenant.run(JOB) == NOTHING


def test_one_without_a_date_is_an_error_and_the_others_are_alerted(tenant: TenantDatabase) -> None:
    tenant.add(users, admin(id=1))
    tenant.add(expiring_assets, certificate(None, id=1), certificate(1, id=2))

    assert tenant.run(JOB) == NOTHING | {"checked": 2, "alerted": 1, "errors": 1}

    error, done = tenant.rows(job_items)
    assert (error["item"], error["state"]) == ("1", "error")
    assert error["detail"] == "ValueError: expected expires_at or expires_on, got neither"
    assert done["item"] == "2:2026-03-02:1"


def test_an_error_is_forgotten_when_the_date_is_there(tenant: TenantDatabase) -> None:
    tenant.add(expiring_assets, certificate(None, id=1))
    tenant.run(JOB)
    with tenant.engine.begin() as connection:
        connection.execute(update(expiring_assets).values(expires_on=date(2027, 1, 1)))

    assert tenant.run(JOB) == NOTHING | {"checked": 1}
    assert tenant.rows(job_items) == []


def test_the_error_of_a_certificate_that_is_cancelled_is_forgotten(
    tenant: TenantDatabase,
) -> None:
    tenant.add(expiring_assets, certificate(None, id=1))
    tenant.run(JOB)
    with tenant.engine.begin() as connection:
        connection.execute(update(expiring_assets).values(cancelled_at=S))

    assert tenant.run(JOB, slot=S + timedelta(days=1)) == NOTHING
    assert tenant.rows(job_items) == []


def test_the_owner_is_told_and_nobody_else(tenant: TenantDatabase) -> None:
    tenant.add(users, admin(id=1), user(id=2, email="owner@example.org"))
    tenant.add(expiring_assets, certificate(1, owner_id=2))

    assert tenant.run(JOB)["alerted"] == 1
    assert [row["recipient"] for row in tenant.rows(outbox)] == ["owner@example.org"]


@pytest.mark.parametrize(
    "owner",
    [
        pytest.param({"status": "disabled"}, id="disabled"),
        pytest.param({"status": "invited"}, id="invited"),
        pytest.param({"email": "nobody"}, id="no address"),
    ],
)
def test_the_administrators_are_told_instead_of_an_owner_who_cannot_be(
    tenant: TenantDatabase, owner
) -> None:
    tenant.add(users, user(id=1, **owner))
    tenant.add(users, *(admin(id=number, email=f"{number}@example.org") for number in (2, 3)))
    tenant.add(expiring_assets, certificate(1, owner_id=1), certificate(1, owner_id=None))

    assert tenant.run(JOB)["alerted"] == 2
    assert [row["recipient"] for row in tenant.rows(outbox)] == [
        "2@example.org",
        "3@example.org",
    ] * 2


def test_where_nobody_can_be_told_it_is_tried_again(tenant: TenantDatabase) -> None:
    tenant.add(users, admin(id=1, status="disabled"))
    tenant.add(expiring_assets, certificate(1, owner_id=1), certificate(-2))
    before = tenant.content()

    assert tenant.run(JOB) == NOTHING | {"checked": 2, "no_recipient": 2}
    assert tenant.content() == before

    tenant.add(users, admin())
    assert tenant.run(JOB, slot=S + timedelta(hours=1))["alerted"] == 2


def test_what_renews_itself_is_never_urgent(tenant: TenantDatabase) -> None:
    tenant.add(users, admin(id=1))
    tenant.add(expiring_assets, certificate(1, auto_renew=True), certificate(-1, auto_renew=True))

    assert tenant.run(JOB) == NOTHING | {"checked": 2, "alerted": 2, "expired": 1}
    assert subjects(tenant) == [
        "[low] Certificate Zoë 李 🎁 renews tomorrow",
        "[low] Certificate Zoë 李 🎁 has expired",
    ]


def test_thresholds_and_the_end_of_all_alerts_can_be_set(tenant: TenantDatabase) -> None:
    tenant.add(users, admin(id=1))
    tenant.add(expiring_assets, *(certificate(days, id=days + 10) for days in (-3, -2, 0, 4, 6)))

    counters = tenant.run(JOB, thresholds="5,2", stop_after_days=2)

    assert counters == NOTHING | {"checked": 5, "alerted": 3, "expired": 1, "too_old": 1}
    assert marks(tenant) == ["8:2026-02-27:expired", "10:2026-03-01:2", "14:2026-03-05:5"]


def test_more_certificates_than_one_batch_holds_are_all_checked(tenant: TenantDatabase) -> None:
    tenant.add(expiring_assets, *(certificate(100) for _ in range(501)))

    assert tenant.run(JOB) == NOTHING | {"checked": 501}
