"""The jobs on the demo's tenants, their counters computed anew from the rows."""

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from demo.planting import contents, scene_of
from demo.tenants import Defect, DemoTenant, fleet
from jobs.schema import metadata, outbox, users, work_items
from tests.jobs.tenant import S, TenantDatabase

Row = dict[str, Any]

#: Every zone and every mood, with and without earlier figures, and one tenant with bad rows.
TENANTS = fleet(6)

JOBS = (
    "compliance.overdue_actions",
    "cleanup.rate_limits",
    "operations.health_check",
    "reports.aggregate_metrics",
)


@pytest.fixture(params=TENANTS, ids=lambda each: each.name)
def planned(request: pytest.FixtureRequest, tenant: TenantDatabase) -> DemoTenant:
    """Fill the tenant with the rows that the demo gives to this one."""
    chosen: DemoTenant = request.param
    for table, rows in contents(chosen, scene_of(chosen, seed=1, at=S)).items():
        tenant.add(metadata.tables[table], *rows)
    return chosen


def today(planned: DemoTenant) -> date:
    return S.astimezone(ZoneInfo(planned.zone)).date()


def late(planned: DemoTenant, rows: Iterable[Row]) -> list[Row]:
    return [
        row
        for row in rows
        if row["kind"] == "action"
        and row["status"] in {"created", "in_progress"}
        and row["due_date"] is not None
        and row["due_date"] < today(planned)
        and not row["is_overdue"]
    ]


def test_overdue_actions(tenant: TenantDatabase, planned: DemoTenant) -> None:
    active = {row["id"] for row in tenant.rows(users) if row["status"] == "active"}
    flagged = late(planned, tenant.rows(work_items))
    owned = [row for row in flagged if row["owner_id"] in active]

    assert tenant.run("compliance.overdue_actions", zone=planned.zone, notify=True) == {
        "flagged": len(flagged),
        "notified": len(owned),
        "no_owner": len(flagged) - len(owned),
        "errors": 0,
    }

    assert 0 < len(owned) < len(flagged)
    assert late(planned, tenant.rows(work_items)) == []


def test_rate_limits(tenant: TenantDatabase, planned: DemoTenant) -> None:
    rows = tenant.rows(metadata.tables["rate_limits"])
    over = [row for row in rows if row["expires_at"] <= S]

    assert tenant.run("cleanup.rate_limits", zone=planned.zone) == {"deleted": len(over)}

    assert {S, S - timedelta(seconds=1)} <= {row["expires_at"] for row in over}
    assert S + timedelta(seconds=1) in {row["expires_at"] for row in rows}


def expected_health(tenant: TenantDatabase) -> Iterator[tuple[str, str]]:
    """Judge each component by its rows, in plain words."""
    hours = {
        row["id"]: (S - row["not_before"]) / timedelta(hours=1)
        for row in tenant.rows(outbox)
        if row["status"] == "pending"
    }
    dead = any(
        row["status"] == "dead" and row["created_at"] > S - timedelta(hours=24)
        for row in tenant.rows(outbox)
    )
    oldest = max(hours.values())
    yield "database", "ok"
    yield "schema", "ok"
    yield "outbox", "fail" if oldest > 24 else "warning" if oldest > 0.5 or dead else "ok"
    integrations = [row for row in tenant.rows(metadata.tables["integrations"]) if row["enabled"]]
    for component, is_mailbox in (("integrations", False), ("email_sync", True)):
        bad = {
            row["state"] != "ok" for row in integrations if (row["kind"] == "mailbox") is is_mailbox
        }
        yield component, "ok" if bad == {False} else "fail" if bad == {True} else "warning"
    yield "backups", max(verifications(tenant), key=["ok", "warning", "fail"].index)
    items = tenant.rows(metadata.tables["job_items"])
    failing = any(row["state"] == "error" and row["attempts"] >= 3 for row in items)
    yield "jobs", "warning" if failing else "ok"


def verifications(tenant: TenantDatabase) -> Iterator[str]:
    rows = tenant.rows(metadata.tables["backups"])
    for component in {row["component"] for row in rows}:
        found = [row for row in rows if row["component"] == component and row["verified_at"]]
        if not found:
            yield "warning"
            continue
        latest = max(found, key=lambda row: row["verified_at"])
        old = S - latest["verified_at"] > timedelta(days=8)
        yield "fail" if latest["verify_status"] == "corrupt" else "warning" if old else "ok"


def test_health_check(tenant: TenantDatabase, planned: DemoTenant) -> None:
    found = dict(expected_health(tenant))
    (before,) = tenant.rows(metadata.tables["reports"])
    changed = (before["summary"]["status"] == "fail") != ("fail" in found.values())
    told = [
        row
        for row in tenant.rows(users)
        if row["role"] == "admin" and row["status"] == "active" and "@" in row["email"]
    ]

    counters = tenant.run("operations.health_check", zone=planned.zone, alert_on_failure=True)

    assert counters == {
        **{status: list(found.values()).count(status) for status in ("ok", "warning", "fail")},
        "alerts": len(told) if changed else 0,
        "existing": 0,
        "errors": 0,
    }
    _, report = tenant.rows(metadata.tables["reports"])
    assert {name: each["status"] for name, each in report["summary"]["components"].items()} == found


def day_of(moment: datetime | None, zone: str) -> date | None:
    return moment.astimezone(ZoneInfo(zone)).date() if moment else None


def expected_figures(tenant: TenantDatabase, zone: str, day: date) -> dict[str, int]:
    """Count rows by the date on the tenant's wall; no window is computed."""

    def count(table: str, column: str, **wanted: str) -> int:
        return sum(
            day_of(row[column], zone) == day
            for row in tenant.rows(metadata.tables[table])
            if all(row[key] == value for key, value in wanted.items())
        )

    return {
        "logins": count("audit_log", "created_at", action="login"),
        "actions_opened": count("work_items", "opened_at", kind="action"),
        "actions_closed": count("work_items", "closed_at", kind="action"),
        "cases_opened": count("work_items", "opened_at", kind="case"),
        "cases_closed": count("work_items", "closed_at", kind="case"),
        "notifications_created": count("notifications", "created_at"),
        "messages_sent": count("outbox", "sent_at"),
        "audit_events": count("audit_log", "created_at"),
        "exchanges_completed": count("exchanges", "completed_at"),
    }


def test_aggregate_metrics(tenant: TenantDatabase, planned: DemoTenant) -> None:
    yesterday = today(planned) - timedelta(days=1)
    known: dict[str, dict[str, int]] = {}
    for row in tenant.rows(metadata.tables["metric_values"]):
        known.setdefault(row["bucket"], {})[row["metric"]] = row["value"]
    week = [yesterday - timedelta(days=back) for back in range(8)]
    days = [day for day in week if day == yesterday or len(known.get(day.isoformat(), {})) < 9]
    wanted = {day.isoformat(): expected_figures(tenant, planned.zone, day) for day in days}
    counters = {"days": len(days), "written": 0, "updated": 0, "unchanged": 0, "errors": 0}
    for day, figures in wanted.items():
        for metric, value in figures.items():
            before = known.get(day, {}).get(metric)
            same = "unchanged" if before == value else "updated"
            counters["written" if before is None else same] += 1

    assert tenant.run("reports.aggregate_metrics", zone=planned.zone) == counters

    kept: dict[str, dict[str, int]] = {}
    for row in tenant.rows(metadata.tables["metric_values"]):
        kept.setdefault(row["bucket"], {})[row["metric"]] = row["value"]
    assert {day: kept[day] for day in wanted} == wanted
    assert all(wanted[yesterday.isoformat()].values())


def test_the_same_slot_once_more_changes_no_row(
    tenant: TenantDatabase, planned: DemoTenant
) -> None:
    for job in JOBS:
        tenant.run(job, zone=planned.zone)
    before = tenant.content()

    for job in JOBS:
        tenant.run(job, zone=planned.zone)

    assert tenant.content() == before


def test_rows_stand_on_both_sides_of_each_boundary(
    tenant: TenantDatabase, planned: DemoTenant
) -> None:
    midnight = datetime.combine(today(planned), time(), ZoneInfo(planned.zone))
    start, end = (
        (midnight - timedelta(days=1)).astimezone(UTC),
        midnight.astimezone(UTC),
    )
    second = timedelta(seconds=1)
    edges = {start - second, start, end - second, end}
    dated = {
        "audit_log": "created_at",
        "work_items": "opened_at",
        "notifications": "created_at",
        "outbox": "sent_at",
        "exchanges": "completed_at",
    }

    for table, column in dated.items():
        assert edges <= {row[column] for row in tenant.rows(metadata.tables[table])}, table
    closed = {(row["kind"], row["closed_at"]) for row in tenant.rows(work_items)}
    assert {(kind, edge) for kind in ("action", "case") for edge in edges} <= closed
    due = {row["due_date"] for row in tenant.rows(work_items) if row["status"] == "created"}
    assert {today(planned) - timedelta(days=1), today(planned), None} <= due


def test_the_tenants_of_these_tests_are_of_every_zone_and_one_has_bad_rows() -> None:
    assert len({each.zone for each in TENANTS}) == 6
    assert Defect.BAD_ROWS in {each.defect for each in TENANTS}
