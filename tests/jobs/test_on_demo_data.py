"""Jobs that count and report on the demo's tenants, their figures computed anew from the rows."""

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from demo.expectations import FLEET
from demo.expectations import JOBS as OF_TENANTS
from demo.tenants import Defect, DemoTenant
from jobs.schema import metadata, outbox, users, work_items
from tests.jobs.demo_rows import (
    FEW,
    TENANTS,
    Row,
    admins,
    can_be_told,
    chosen,
    date_in,
    files_of,
    filled,
    queued,
    today,
)
from tests.jobs.tenant import JOBS, S, TenantDatabase, ago

planned = filled(FEW)
of_every_zone = pytest.mark.parametrize(
    "planned", TENANTS, indirect=True, ids=lambda each: each.name
)


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


@of_every_zone
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
    (before,) = chosen(tenant.rows("reports"), kind="health")
    changed = (before["summary"]["status"] == "fail") != ("fail" in found.values())

    counters = tenant.run("operations.health_check", zone=planned.zone, alert_on_failure=True)

    assert counters == {
        **{status: list(found.values()).count(status) for status in ("ok", "warning", "fail")},
        "alerts": len(admins(tenant)) if changed else 0,
        "existing": 0,
        "errors": 0,
    }
    _, report = chosen(tenant.rows("reports"), kind="health")
    assert {name: each["status"] for name, each in report["summary"]["components"].items()} == found


def day_of(moment: datetime | None, zone: str) -> date | None:
    return date_in(moment, zone) if moment else None


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


@of_every_zone
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


@of_every_zone
def test_overnight(tenant: TenantDatabase, planned: DemoTenant) -> None:
    yesterday = today(planned) - timedelta(days=1)
    items = tenant.rows(work_items)
    cases = [row for row in items if row["kind"] == "case"]
    open_actions = [
        row
        for row in items
        if row["kind"] == "action" and row["status"] in {"created", "in_progress"}
    ]
    dead = chosen(tenant.rows(outbox), status="dead")
    leaders = [row for row in tenant.rows(users) if row["role"] in {"admin", "manager"}]

    counters = tenant.run("reports.overnight", zone=planned.zone)

    assert counters == {
        "opened": sum(day_of(row["opened_at"], planned.zone) == yesterday for row in cases),
        "closed": sum(day_of(row["closed_at"], planned.zone) == yesterday for row in cases),
        "unassigned": sum(
            row["owner_id"] is None and row["status"] in {"open", "active"} for row in cases
        ),
        "overdue": len(chosen(open_actions, is_overdue=True)),
        "dead": sum(day_of(row["created_at"], planned.zone) == yesterday for row in dead),
        "messages": sum(map(can_be_told, leaders)),
        "existing": 0,
        "errors": 0,
    }
    assert all(counters[name] for name in ("opened", "closed", "unassigned", "overdue", "dead"))
    assert tenant.run("reports.overnight", zone=planned.zone) == {
        **dict.fromkeys(counters, 0), "existing": 1,
    }  # fmt: skip


def is_of_february(moment: datetime | None) -> bool:
    return moment is not None and (moment.year, moment.month) == (2026, 2)


def test_usage(tenant: TenantDatabase, planned: DemoTenant) -> None:
    events = [row for row in tenant.rows("audit_log") if is_of_february(row["created_at"])]
    logins = chosen(events, action="login")
    items = tenant.rows(work_items)
    closed = [row for row in chosen(items, kind="action") if is_of_february(row["closed_at"])]
    sent = [row["channel"] for row in tenant.rows(outbox) if is_of_february(row["sent_at"])]
    actions = Counter(row["action"] for row in events)

    assert tenant.run("reports.usage", zone=planned.zone) == {
        "logins": len(logins),
        "users": len({row["actor_id"] for row in logins}),
        "audit_events": len(events),
        "existing": 0,
        "messages": len(admins(tenant)),
        "errors": 0,
    }

    (report,) = chosen(tenant.rows("reports"), kind="usage")
    assert report["period_key"] == "2026-02"
    assert report["summary"] == {
        "logins": len(logins),
        "users": len({row["actor_id"] for row in logins}),
        "audit_events": len(events),
        "new_users": sum(is_of_february(row["created_at"]) for row in tenant.rows(users)),
        "actions_closed": len(closed),
        "cases_opened": sum(is_of_february(row["opened_at"]) for row in chosen(items, kind="case")),
        "messages": dict(Counter(sent)),
        "top_actions": sorted(map(list, actions.items()), key=lambda each: (-each[1], each[0]))[:5],
    }
    assert report["summary"]["new_users"] == 2
    assert {"email", "slack"} == set(sent)


def inactive(rows: Iterable[Row]) -> list[Row]:
    return [
        row
        for row in rows
        if row["status"] == "active" and (row["last_login_at"] or row["created_at"]) <= ago(days=90)
    ]


def test_inactive_users(tenant: TenantDatabase, planned: DemoTenant) -> None:
    found = inactive(tenant.rows(users))
    never = chosen(found, last_login_at=None)

    assert tenant.run("reports.inactive_users", zone=planned.zone) == {
        "inactive": len(found),
        "never_logged_in": len(never),
        "existing": 0,
        "messages": len(admins(tenant)),
        "errors": 0,
    }

    limit, second = ago(days=90), timedelta(seconds=1)
    assert limit in {row["created_at"] for row in never}
    assert limit in {row["last_login_at"] for row in found}
    assert {limit, limit + second} <= {row["last_login_at"] for row in tenant.rows(users)}
    assert {limit, limit + second} <= {row["created_at"] for row in tenant.rows(users)}


def expected_tiles(tenant: TenantDatabase, planned: DemoTenant) -> Iterator[tuple[str, Any]]:
    people, items = tenant.rows(users), tenant.rows(work_items)
    open_actions = [
        row
        for row in items
        if row["kind"] == "action" and row["status"] in {"created", "in_progress"}
    ]
    ends = [
        day_of(row["expires_at"], planned.zone) or row["expires_on"] or date.max
        for row in chosen(tenant.rows("expiring_assets"), cancelled_at=None)
    ]
    snapshots = sorted(tenant.rows("compliance_snapshots"), key=lambda row: row["slot"])
    connected = chosen(tenant.rows("integrations"), enabled=True)
    yield "users_active", len(chosen(people, status="active"))
    yield "users_inactive", len(inactive(people))
    yield "actions_open", len(open_actions)
    yield "actions_overdue", len(chosen(open_actions, is_overdue=True))
    yield "controls", dict(Counter(snapshots[-1]["statuses"].values()))
    yield "assets_expiring_30", sum(0 <= (end - today(planned)).days <= 30 for end in ends)
    for status in ("pending", "dead"):
        yield f"outbox_{status}", len(chosen(tenant.rows(outbox), status=status))
    yield "integrations_bad", sum(row["state"] != "ok" for row in connected)
    yield "health", chosen(tenant.rows("reports"), kind="health")[0]["summary"]


def test_update_dashboard(tenant: TenantDatabase, planned: DemoTenant) -> None:
    tiles = dict(expected_tiles(tenant, planned))
    shown = {
        row["metric"]: row["value"]
        for row in chosen(tenant.rows("metric_values"), bucket="current")
    }

    assert tenant.run("reports.update_dashboard", zone=planned.zone) == {
        "tiles": len(tiles),
        "changed": sum(name not in shown or shown[name] != value for name, value in tiles.items()),
        "errors": 0,
    }

    kept = chosen(tenant.rows("metric_values"), bucket="current", as_of=S)
    assert {row["metric"]: row["value"] for row in kept} == tiles
    assert tenant.attempt("reports.update_dashboard", zone=planned.zone).outcome == "skipped"


def test_what_is_expected_of_the_demo_names_every_shipped_job() -> None:
    hooks = {work for work in FLEET if ":" in work}

    assert OF_TENANTS | (FLEET.keys() - hooks) == JOBS.keys()
    assert hooks == {
        *(job.prepare_name for job in JOBS.values() if job.prepare),
        *(job.summarize_name for job in JOBS.values() if job.summarize),
    }


def test_the_same_slot_once_more_changes_no_row(
    tenant: TenantDatabase, planned: DemoTenant, tmp_path: Path
) -> None:
    places = files_of(planned, tmp_path)
    options: dict[str, dict[str, Any]] = {
        "comms.deliver": {"folder": str(places.outbox)},
        "finance.exchange_rates": {"file": str(places.rates)},
        "maintenance.verify_backups": {"root": str(places.backups)},
        "operations.refresh_integrations": {"catalogue": str(places.catalogue)},
    }

    # At the end what the others have queued is sent as well.
    def run() -> dict[str, str]:
        return {
            job: tenant.attempt(job, zone=planned.zone, **options.get(job, {})).outcome
            for job in (*sorted(OF_TENANTS), "comms.deliver")
        }

    first = run()
    before = tenant.content()
    again = run()

    assert set(first.values()) == {"succeeded"}
    assert tenant.content() == before
    assert [job for job in again if again[job] != "succeeded"] == ["reports.update_dashboard"]
    assert queued(tenant) > 0


def test_the_tenants_of_these_tests_are_of_every_zone_and_one_has_bad_rows() -> None:
    assert len({each.zone for each in TENANTS}) == 6
    assert Defect.BAD_ROWS in {each.defect for each in TENANTS}
