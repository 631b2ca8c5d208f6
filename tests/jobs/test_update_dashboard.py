"""reports.update_dashboard"""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from cronrunner import Skip
from jobs.schema import (
    compliance_snapshots,
    expiring_assets,
    integrations,
    metric_values,
    outbox,
    reports,
    users,
    work_items,
)
from tests.jobs.rows import action, asset, case, integration, mailbox, message, user
from tests.jobs.tenant import JOBS, S, TenantDatabase, ago

JOB = "reports.update_dashboard"
EMPTY = {
    "users_active": 0,
    "users_inactive": 0,
    "actions_open": 0,
    "actions_overdue": 0,
    "controls": {},
    "assets_expiring_30": 0,
    "outbox_pending": 0,
    "outbox_dead": 0,
    "integrations_bad": 0,
    "health": {},
}


def tiles(tenant: TenantDatabase) -> dict[str, Any]:
    rows = tenant.rows(metric_values)
    return {row["metric"]: row["value"] for row in rows if row["bucket"] == "current"}


def utc(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}+00:00")


def runs(tenant: TenantDatabase, slot: datetime, **settings: Any) -> bool:
    try:
        return tenant.run(JOB, slot=slot, **settings)["tiles"] == 10
    except Skip:
        return False


def test_the_first_run_writes_every_tile(tenant: TenantDatabase) -> None:
    assert tenant.run(JOB) == {"tiles": 10, "changed": 10, "errors": 0}

    assert tiles(tenant) == EMPTY
    assert {row["as_of"] for row in tenant.rows(metric_values)} == {S}


def test_a_second_run_of_the_slot_is_skipped_and_writes_nothing(tenant: TenantDatabase) -> None:
    tenant.run(JOB)
    tenant.add(users, user())
    before = tenant.content()

    with pytest.raises(Skip, match="not due"):
        tenant.run(JOB)
    assert tenant.content() == before


def test_every_tile_is_of_the_slot_and_those_that_differ_are_counted(
    tenant: TenantDatabase,
) -> None:
    tenant.run(JOB)
    tenant.add(users, user(last_login_at=ago(days=1)))
    tenant.add(outbox, message(status="dead"))
    later = S + timedelta(hours=1)

    assert tenant.run(JOB, slot=later) == {"tiles": 10, "changed": 2, "errors": 0}

    assert tiles(tenant) == EMPTY | {"users_active": 1, "outbox_dead": 1}
    assert {row["as_of"] for row in tenant.rows(metric_values)} == {later}


def test_figures_of_days_are_no_tiles(tenant: TenantDatabase) -> None:
    figure = {"metric": "logins", "bucket": "2026-03-01", "value": 3, "as_of": S}
    other = {"metric": "of somebody else", "bucket": "current", "value": 3, "as_of": S}
    tenant.add(metric_values, figure, other, figure | {"metric": "users_active"})

    assert tenant.run(JOB)["changed"] == 10
    assert [row["value"] for row in tenant.rows(metric_values)[:3]] == [3, 3, 3]


@pytest.mark.parametrize(
    ("interval", "zone", "slot", "expected"),
    [
        # After tiles of 2026-03-01T04:05Z, a Sunday; in New York it is Saturday, 23:05.
        ("hourly", "UTC", "2026-03-01T04:59", False),
        ("hourly", "UTC", "2026-03-01T05:00", True),
        ("daily", "America/New_York", "2026-03-01T04:35", False),
        ("daily", "America/New_York", "2026-03-01T05:00", True),
        ("daily", "America/New_York", "2026-03-01T05:05", True),
        ("daily", "UTC", "2026-03-01T23:59", False),
        ("daily", "UTC", "2026-03-02T00:05", True),
        ("weekly", "UTC", "2026-03-01T23:05", False),
        ("weekly", "UTC", "2026-03-02T00:05", True),
        ("weekly", "America/New_York", "2026-03-02T04:05", False),
        ("weekly", "America/New_York", "2026-03-02T05:05", True),
        ("6h", "America/New_York", "2026-03-01T05:59", False),
        ("6h", "America/New_York", "2026-03-01T06:05", True),
        ("2h", "UTC", "2026-03-01T05:05", False),
        # Hours are counted from 1970 on and not from midnight.
        ("5h", "UTC", "2026-03-01T04:05", False),
        ("5h", "UTC", "2026-03-01T09:05", True),
        # An earlier slot that comes late.
        ("hourly", "UTC", "2026-03-01T03:05", False),
        ("weekly", "UTC", "2026-02-22T03:05", False),
    ],
)
def test_tiles_are_written_once_in_each_interval(
    tenant: TenantDatabase, interval, zone, slot, expected
) -> None:
    assert runs(tenant, utc("2026-03-01T04:05"), interval=interval, zone=zone)

    assert runs(tenant, utc(slot), interval=interval, zone=zone) is expected


def test_the_first_week_of_a_year_comes_after_the_last_of_the_one_before(
    tenant: TenantDatabase,
) -> None:
    # ISO: the week from 2025-12-29 on is the first of 2026.
    assert runs(tenant, utc("2025-12-28T23:05"), interval="weekly")
    assert runs(tenant, utc("2025-12-29T00:05"), interval="weekly")
    assert not runs(tenant, utc("2026-01-04T23:05"), interval="weekly")


@pytest.mark.parametrize("value", ["monthly", "0h", "h", "-1h", "6", "daily,weekly", ""])
def test_an_interval_that_is_none_is_refused(value) -> None:
    with pytest.raises(ValueError, match="expected hourly, daily, weekly"):
        JOBS[JOB].options["interval"].read(value)


def test_the_interval_can_come_from_the_environment() -> None:
    assert JOBS[JOB].options["interval"].environment == "DASHBOARD_UPDATE_INTERVAL"


def test_users_count_as_active_and_inactive_ones(tenant: TenantDatabase) -> None:
    day_90 = ago(days=90)
    tenant.add(
        users,
        user(last_login_at=ago(days=1)),
        user(last_login_at=day_90),
        user(last_login_at=day_90 + timedelta(seconds=1)),
        user(last_login_at=None, created_at=day_90),
        user(last_login_at=day_90, status="disabled"),
        user(last_login_at=day_90, status="invited"),
    )

    tenant.run(JOB)

    assert tiles(tenant) == EMPTY | {"users_active": 4, "users_inactive": 2}


def test_actions_count_while_they_are_open(tenant: TenantDatabase) -> None:
    tenant.add(
        work_items,
        action(status="created"),
        action(status="in_progress", is_overdue=True),
        action(status="created", is_overdue=False),
        action(status="completed", is_overdue=True),
        action(status="cancelled", is_overdue=True),
        case(status="open", is_overdue=True),
    )

    tenant.run(JOB)

    assert tiles(tenant) == EMPTY | {"actions_open": 3, "actions_overdue": 1}


def test_controls_are_those_of_the_latest_snapshot(tenant: TenantDatabase) -> None:
    base: dict[str, Any] = {"changes": [], "counts": {}}
    statuses = {"1": "compliant", "2": "warning", "3": "compliant"}
    tenant.add(
        compliance_snapshots,
        base | {"slot": ago(days=1), "statuses": statuses},
        base | {"slot": ago(days=8), "statuses": {"1": "non_compliant"}},
        base | {"slot": ago(seconds=-1), "statuses": {}},
    )

    tenant.run(JOB)

    assert tiles(tenant) == EMPTY | {"controls": {"compliant": 2, "warning": 1}}


@pytest.mark.parametrize(
    ("values", "zone", "counted"),
    [
        ({"expires_on": date(2026, 2, 28)}, "UTC", 0),
        ({"expires_on": date(2026, 3, 1)}, "UTC", 1),
        ({"expires_on": date(2026, 3, 31)}, "UTC", 1),
        ({"expires_on": date(2026, 4, 1)}, "UTC", 0),
        ({"expires_on": date(2026, 2, 28)}, "America/New_York", 1),
        ({"expires_on": date(2026, 3, 31)}, "America/New_York", 0),
        ({"expires_at": ago(seconds=1)}, "UTC", 0),
        ({"expires_at": S}, "UTC", 1),
        ({"expires_at": datetime(2026, 3, 31, 23, 59, 59, tzinfo=UTC)}, "UTC", 1),
        ({"expires_at": datetime(2026, 4, 1, tzinfo=UTC)}, "UTC", 0),
        # From 2026-02-28T05:00Z to 2026-03-31T04:00Z: in between their clocks go forward.
        ({"expires_at": ago(hours=19, seconds=1)}, "America/New_York", 0),
        ({"expires_at": ago(hours=19)}, "America/New_York", 1),
        ({"expires_at": datetime(2026, 3, 31, 3, 59, 59, tzinfo=UTC)}, "America/New_York", 1),
        ({"expires_at": datetime(2026, 3, 31, 4, tzinfo=UTC)}, "America/New_York", 0),
        # The instant goes before the date.
        ({"expires_at": ago(days=-90), "expires_on": date(2026, 3, 2)}, "UTC", 0),
        ({"expires_on": date(2026, 3, 1), "cancelled_at": ago(days=1)}, "UTC", 0),
        ({}, "UTC", 0),
    ],
)
def test_assets_count_that_end_within_thirty_days_of_the_tenants_calendar(
    tenant: TenantDatabase, values, zone, counted
) -> None:
    tenant.add(expiring_assets, asset("credential", **values))

    tenant.run(JOB, zone=zone)

    assert tiles(tenant) == EMPTY | {"assets_expiring_30": counted}


def test_messages_count_that_wait_and_that_were_given_up(tenant: TenantDatabase) -> None:
    states = ["pending", "pending", "sending", "sent", "dead", "cancelled"]
    tenant.add(outbox, *(message(status=status) for status in states))

    tenant.run(JOB)

    assert tiles(tenant) == EMPTY | {"outbox_pending": 2, "outbox_dead": 1}


def test_integrations_count_that_are_enabled_and_not_well(tenant: TenantDatabase) -> None:
    tenant.add(
        integrations,
        integration(),
        integration(state="degraded"),
        mailbox(state="stale"),
        integration(state="degraded", enabled=False),
    )

    tenant.run(JOB)

    assert tiles(tenant) == EMPTY | {"integrations_bad": 2}


def test_health_is_what_the_last_check_found(tenant: TenantDatabase) -> None:
    def report(kind: str, slot: datetime, status: str) -> dict[str, Any]:
        summary = {"status": status, "components": {}}
        base = {"kind": kind, "slot": slot, "summary": summary, "body": "", "created_at": slot}
        return base | {"period_key": slot.isoformat()}

    tenant.add(
        reports,
        report("health", ago(hours=1), "warning"),
        report("health", ago(hours=2), "fail"),
        report("usage", S, "of something else"),
        report("health", ago(seconds=-1), "ok"),
    )

    tenant.run(JOB)

    assert tiles(tenant) == EMPTY | {"health": {"status": "warning", "components": {}}}
