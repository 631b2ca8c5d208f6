"""reports.aggregate_metrics"""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Table, delete

from jobs.schema import (
    audit_log,
    exchanges,
    metric_values,
    notifications,
    outbox,
    users,
    work_items,
)
from tests.jobs.rows import action, case, event, exchange, message, notice, user
from tests.jobs.tenant import S, TenantDatabase, ago

JOB = "reports.aggregate_metrics"
NOTHING = {"days": 0, "written": 0, "updated": 0, "unchanged": 0, "errors": 0}
METRICS = {
    "logins",
    "actions_opened",
    "actions_closed",
    "cases_opened",
    "cases_closed",
    "notifications_created",
    "messages_sent",
    "audit_events",
    "exchanges_completed",
}


def figures(tenant: TenantDatabase, day: str) -> dict[str, Any]:
    return {
        row["metric"]: row["value"] for row in tenant.rows(metric_values) if row["bucket"] == day
    }


def test_five_logins_of_yesterday_are_counted(tenant: TenantDatabase) -> None:
    tenant.add(audit_log, *(event(ago(hours=hours)) for hours in range(1, 6)))
    tenant.add(audit_log, event(ago(hours=1), action="logout"))

    tenant.run(JOB)

    yesterday = figures(tenant, "2026-02-28")
    assert yesterday["logins"] == 5
    assert yesterday["audit_events"] == 6
    assert set(yesterday) == METRICS
    assert {row["as_of"] for row in tenant.rows(metric_values)} == {S}


def test_the_first_run_fills_in_a_week(tenant: TenantDatabase) -> None:
    assert tenant.run(JOB) == NOTHING | {"days": 8, "written": 72}

    days = {row["bucket"] for row in tenant.rows(metric_values)}
    assert days == {(date(2026, 2, 28) - timedelta(days=n)).isoformat() for n in range(8)}


def test_a_day_ends_before_the_midnight_after_it(tenant: TenantDatabase) -> None:
    first, last = datetime(2026, 2, 28, tzinfo=UTC), ago(seconds=1)
    tenant.add(audit_log, *map(event, [first - timedelta(seconds=1), first, last, S]))

    tenant.run(JOB)

    assert figures(tenant, "2026-02-28")["logins"] == 2
    assert figures(tenant, "2026-02-27")["logins"] == 1


def test_a_second_run_of_the_slot_writes_nothing(tenant: TenantDatabase) -> None:
    tenant.add(audit_log, event(ago(hours=1)))
    tenant.run(JOB)
    before = tenant.content()

    assert tenant.run(JOB) == NOTHING | {"days": 1, "unchanged": 9}
    assert tenant.content() == before


def _closed(row: dict[str, Any], moment: datetime) -> dict[str, Any]:
    return row | {"status": "completed", "closed_at": moment}


@pytest.mark.parametrize(
    ("metric", "table", "at"),
    [
        ("actions_opened", work_items, lambda moment: action(opened_at=moment)),
        ("actions_closed", work_items, lambda moment: _closed(action(), moment)),
        ("cases_opened", work_items, lambda moment: case(opened_at=moment)),
        ("cases_closed", work_items, lambda moment: _closed(case(), moment)),
        ("notifications_created", notifications, notice),
        ("messages_sent", outbox, lambda moment: message(status="sent", sent_at=moment)),
        ("exchanges_completed", exchanges, lambda moment: exchange(completed_at=moment)),
    ],
)
def test_each_figure_counts_its_own_rows_on_the_day_they_are_dated(
    tenant: TenantDatabase, metric, table: Table, at
) -> None:
    tenant.add(users, user(id=1))
    tenant.add(table, at(ago(days=1)), at(ago(seconds=1)), at(S), at(ago(days=1, seconds=1)))

    tenant.run(JOB)

    yesterday = figures(tenant, "2026-02-28")
    assert yesterday == dict.fromkeys(METRICS, 0) | {metric: 2}


def test_rows_without_the_date_are_not_counted(tenant: TenantDatabase) -> None:
    tenant.add(work_items, action(closed_at=None))
    tenant.add(outbox, message(sent_at=None))

    tenant.run(JOB)

    assert figures(tenant, "2026-02-28") == dict.fromkeys(METRICS, 0)


def test_a_row_that_came_late_updates_its_figure(tenant: TenantDatabase) -> None:
    tenant.run(JOB)
    tenant.add(work_items, case(opened_at=ago(hours=3)))
    later = S + timedelta(hours=1)

    counters = tenant.run(JOB, slot=later)

    assert counters == NOTHING | {"days": 1, "updated": 1, "unchanged": 8}
    stamps = {
        row["metric"]: row["as_of"]
        for row in tenant.rows(metric_values)
        if row["bucket"] == "2026-02-28"
    }
    assert stamps.pop("cases_opened") == later
    assert set(stamps.values()) == {S}


def test_a_day_that_lacks_one_figure_is_counted_anew(tenant: TenantDatabase) -> None:
    tenant.run(JOB)
    tenant.add(audit_log, event(ago(days=3, hours=1)))
    lost = delete(metric_values).where(
        metric_values.c.metric == "messages_sent", metric_values.c.bucket == "2026-02-25"
    )
    with tenant.engine.begin() as connection:
        connection.execute(lost)

    counters = tenant.run(JOB)

    # Of that day one figure is new, logins and events have changed, and six were right.
    assert counters == {"days": 2, "written": 1, "updated": 2, "unchanged": 9 + 6, "errors": 0}


def test_a_day_before_the_backfill_stays_as_it_is(tenant: TenantDatabase) -> None:
    assert tenant.run(JOB, backfill_days=0) == NOTHING | {"days": 1, "written": 9}
    assert tenant.run(JOB, backfill_days=2) == NOTHING | {"days": 3, "written": 18, "unchanged": 9}


@pytest.mark.parametrize(
    ("zone", "slot", "day", "start", "end"),
    [
        pytest.param(
            "America/New_York", "2026-03-09T05:00", "2026-03-08",
            "2026-03-08T05:00", "2026-03-09T04:00", id="23 hours",
        ),
        pytest.param(
            "America/New_York", "2025-11-03T06:00", "2025-11-02",
            "2025-11-02T04:00", "2025-11-03T05:00", id="25 hours",
        ),
        pytest.param(
            "Australia/Lord_Howe", "2026-04-06T01:00", "2026-04-05",
            "2026-04-04T13:00", "2026-04-05T13:30", id="24 and a half hours",
        ),
        pytest.param(
            "Asia/Kolkata", "2026-03-01T00:00", "2026-02-28",
            "2026-02-27T18:30", "2026-02-28T18:30", id="half an hour off",
        ),
        pytest.param(
            "Pacific/Kiritimati", "2026-02-28T10:00", "2026-02-28",
            "2026-02-27T10:00", "2026-02-28T10:00", id="far east",
        ),
    ],
)  # fmt: skip
def test_a_day_is_the_tenants_own(  # noqa: PLR0913, PLR0917 - a row of the table
    tenant: TenantDatabase, zone, slot, day, start, end
) -> None:
    begin, finish = (datetime.fromisoformat(f"{moment}Z") for moment in (start, end))
    second = timedelta(seconds=1)
    tenant.add(audit_log, *map(event, [begin - second, begin, finish - second, finish]))

    tenant.run(JOB, slot=datetime.fromisoformat(f"{slot}Z"), zone=zone)

    assert figures(tenant, day)["logins"] == 2
