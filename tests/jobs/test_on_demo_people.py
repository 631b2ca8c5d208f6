"""Jobs for people on the demo's tenants, their counters computed anew from the rows."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from demo.tenants import Defect, DemoTenant, fleet
from tests.jobs.demo_rows import (
    FEW,
    Row,
    admins,
    can_be_told,
    chosen,
    date_in,
    fill,
    filled,
    marks,
    queued,
    today,
)
from tests.jobs.tenant import S, TenantDatabase, ago

planned = filled(FEW)

THRESHOLDS = {
    "subscription": [30, 14, 7, 1],
    "credential": [30, 14, 7, 3, 1, 0],
    "certificate": [60, 30, 14, 7, 3, 1, 0],
}


def alert(asset: Row, planned: DemoTenant) -> str | None:
    """Say what there is to say of an asset: `too_old`, a bucket, or nothing."""
    at, on = asset["expires_at"], asset["expires_on"]
    left = ((date_in(at, planned.zone) if at else on) - today(planned)).days
    if left < -30:
        return "too_old"
    if left < 0:
        renews = asset["kind"] == "subscription" and asset["auto_renew"]
        return None if renews else "expired"
    buckets = [limit for limit in THRESHOLDS[asset["kind"]] if limit >= left]
    return str(min(buckets)) if buckets else None


@pytest.mark.parametrize("kind", THRESHOLDS)
def test_alerts(tenant: TenantDatabase, planned: DemoTenant, kind: str) -> None:
    users = {row["id"]: row for row in tenant.rows("users")}
    counted: Counter[str] = Counter()
    told = 0
    done = marks(tenant, f"alerts.{kind}s")
    for asset in chosen(tenant.rows("expiring_assets"), kind=kind, cancelled_at=None):
        counted["checked"] += 1
        if asset["expires_at"] is asset["expires_on"] is None:
            counted["errors"] += 1
            continue
        said = alert(asset, planned)
        if said == "too_old":
            counted["too_old"] += 1
        elif said and f"{asset['id']}:{asset['expires_on']}:{said}" not in done:
            counted["alerted"] += 1
            counted["expired"] += said == "expired"
            owner = users.get(asset["owner_id"])
            told += 1 if owner and can_be_told(owner) else len(admins(tenant))

    assert tenant.run(f"alerts.{kind}s", zone=planned.zone) == {
        **dict.fromkeys(("checked", "alerted", "expired", "no_recipient", "too_old", "errors"), 0),
        **counted,
    }

    assert queued(tenant) == told > counted["alerted"] > counted["expired"] > 0 < len(done)


def test_tokens_and_sessions(tenant: TenantDatabase, planned: DemoTenant) -> None:
    tokens, sessions = tenant.rows("auth_tokens"), tenant.rows("user_sessions")
    expired = [row for row in tokens if row["expires_at"] <= S]
    used = [
        row
        for row in tokens
        if row not in expired and row["used_at"] and row["used_at"] <= ago(hours=24)
    ]
    ended = [row for row in sessions if row["expires_at"] <= S]

    assert tenant.run("cleanup.tokens", zone=planned.zone) == {
        "expired": len(expired), "used": len(used), "errors": 0,
    }  # fmt: skip
    assert tenant.run("cleanup.sessions", zone=planned.zone) == {
        "deleted": len(ended), "errors": 0,
    }  # fmt: skip

    assert [row for row in tokens if row not in expired + used] == tenant.rows("auth_tokens") != []
    assert [row for row in sessions if row not in ended] == tenant.rows("user_sessions") != []


def digest_state(tenant: TenantDatabase, planned: DemoTenant, user: Row) -> str:
    """Tell what becomes of what waits for a reader of digests."""
    try:
        local = S.astimezone(ZoneInfo(user["timezone"] or planned.zone))
    except KeyError:
        return "errors"
    done = marks(tenant, "notifications.dispatch")
    is_sent = f"digest:{user['id']}:{local.date()}" in done
    return "waiting" if local.hour < 8 or is_sent else "queued"


def test_dispatch(tenant: TenantDatabase, planned: DemoTenant) -> None:
    users = {row["id"]: row for row in tenant.rows("users")}
    counted: Counter[str] = Counter()
    digests: dict[int, str] = {}
    new = chosen(tenant.rows("notifications"), state="new")
    for notice in [row for row in new if row["created_at"] <= S]:
        user = users[notice["user_id"]]
        if notice["created_at"] < ago(hours=72):
            counted["expired"] += 1
        elif notice["read_at"] or user["status"] != "active" or not user["notify_email"]:
            counted["suppressed"] += 1
        elif user["digest"]:
            digests[user["id"]] = state = digest_state(tenant, planned, user)
            # A digest that cannot be made is one item, however many notices are in it.
            counted[state] += state != "errors"
        else:
            counted["queued" if can_be_told(user) else "errors"] += 1
            counted["messages"] += can_be_told(user)
    outcomes = Counter(digests.values())
    counted["messages"] += outcomes["queued"]
    counted["errors"] += outcomes["errors"]

    assert tenant.run("notifications.dispatch", zone=planned.zone) == {
        **dict.fromkeys(("messages", "queued", "suppressed", "expired", "waiting", "errors"), 0),
        **counted,
    }

    assert queued(tenant) == counted["messages"]
    assert min(counted[name] for name in ("queued", "suppressed", "expired", "waiting")) > 1
    assert {"queued", "waiting"} <= outcomes.keys()
    later = [row for row in tenant.rows("notifications") if row["created_at"] > S]
    assert {row["state"] for row in later} == {"new"}


def reminders(exchange: Row) -> dict[int, datetime]:
    """Return when an exchange is reminded of, by the number of days before it."""
    zone = ZoneInfo(exchange["timezone"])
    wall = exchange["exchange_at"].astimezone(zone)
    days = [7, 3, 1] if exchange["reminder_days"] is None else exchange["reminder_days"]
    return {each: (wall - timedelta(days=each)).astimezone(UTC) for each in days}


def test_remind(tenant: TenantDatabase, planned: DemoTenant) -> None:
    counted = Counter(due=0, messages=0, missed=0, errors=0)
    done = marks(tenant, "exchanges.remind")
    people = [row for row in tenant.rows("exchange_participants") if row["reminder_enabled"]]
    for exchange in chosen(tenant.rows("exchanges"), state="matched"):
        try:
            found = reminders(exchange)
        except KeyError:
            counted["errors"] += 1
            continue
        for days, at in found.items():
            late = S - at
            if f"{exchange['id']}:{days}:{at:%Y-%m-%dT%H:%M:%SZ}" in done:
                continue
            if timedelta(0) <= late <= timedelta(hours=1) and exchange["exchange_at"] > S:
                counted["due"] += 1
                for person in chosen(people, exchange_id=exchange["id"], withdrawn_at=None):
                    counted["messages" if "@" in person["email"] else "errors"] += 1
            elif timedelta(hours=1) < late <= timedelta(minutes=75):
                counted["missed"] += 1

    assert tenant.run("exchanges.remind", zone=planned.zone) == counted

    assert (counted["due"], counted["missed"]) == (4, 2)
    assert counted["errors"] == (2 if planned.defect is Defect.BAD_ROWS else 0)
    assert queued(tenant) == counted["messages"]


def test_auto_complete(tenant: TenantDatabase, planned: DemoTenant) -> None:
    matched = chosen(tenant.rows("exchanges"), state="matched")
    over = [row for row in matched if row["exchange_at"] <= S]

    assert tenant.run("exchanges.auto_complete", zone=planned.zone) == {
        "completed": len(over), "errors": 0,
    }  # fmt: skip

    assert 0 < len(over) < len(matched)
    stamped = chosen(tenant.rows("exchanges"), state="completed", completed_at=S)
    assert [row["id"] for row in stamped] == [row["id"] for row in over]


def test_purge(tenant: TenantDatabase, planned: DemoTenant) -> None:
    completed = chosen(tenant.rows("exchanges"), state="completed")
    dated = [row for row in completed if row["completed_at"]]
    gone = {row["id"] for row in dated if row["completed_at"] <= ago(days=30)}
    near = [row for row in dated if ago(days=30) < row["completed_at"] <= ago(days=23)]
    done = marks(tenant, "exchanges.purge")
    warned = [
        row
        for row in near
        if f"warn:{row['id']}:{row['completed_at']:%Y-%m-%dT%H:%M:%SZ}" not in done
    ]
    participants = tenant.rows("exchange_participants")

    assert tenant.run("exchanges.purge", zone=planned.zone) == {
        "purged": len(gone),
        "participants": sum(row["exchange_id"] in gone for row in participants),
        "warned": len(warned),
        "errors": len(completed) - len(dated),
    }

    assert len(warned) == len(near) - 1 > 0 < len(gone)
    # Two of those who administer an exchange cannot be written to, and the administrators can.
    assert queued(tenant) == len(warned) - 2 + 2 * len(admins(tenant))
    assert not gone & {row["id"] for row in tenant.rows("exchanges")}


def test_a_tenant_on_hold_keeps_everything(tenant: TenantDatabase, planned: DemoTenant) -> None:
    before = tenant.content()

    for job in ("exchanges.purge", "retention.apply_policies", "retention.archive_audit_log"):
        ended = tenant.attempt(job, zone=planned.zone, labels={"legal_hold": "true"})
        assert ended.outcome == "skipped"

    assert tenant.content() == before


#: Table, column of the age, days, and which rows are finished.
POLICIES: dict[str, tuple[str, int, Any]] = {
    "notifications": ("created_at", 180, lambda row: row["state"] != "new"),
    "outbox": ("created_at", 90, lambda row: row["status"] in {"sent", "dead", "cancelled"}),
    "reports": ("created_at", 730, lambda _: True),
    "archived_records": ("archived_at", 2555, lambda _: True),
    "job_items": ("slot", 400, lambda row: row["state"] == "done"),
    "audit_log": ("created_at", 365, lambda _: True),
}


def old(tenant: TenantDatabase, table: str) -> list[int]:
    """Return the ids of the rows that are strictly older than their policy allows."""
    column, days, is_finished = POLICIES[table]
    rows = tenant.rows(table)
    found = [row["id"] for row in rows if row[column] < ago(days=days) and is_finished(row)]
    limit = [row for row in rows if row[column] == ago(days=days) and is_finished(row)]
    assert limit, f"{table}: no row is exactly as old"
    return found


def hold_retention(tenant: TenantDatabase, zone: str) -> None:
    gone = {table: old(tenant, table) for table in POLICIES}
    archived = chosen(tenant.rows("archived_records"), source_table="audit_log")
    already = {row["source_id"] for row in archived} & {*gone["audit_log"]}
    kept = {table: {row["id"] for row in tenant.rows(table)} - {*gone[table]} for table in gone}
    deleted = [ids for table, ids in gone.items() if table not in {"reports", "audit_log"}]

    assert tenant.run("retention.apply_policies", zone=zone) == {
        "archived": len(gone["reports"]),
        "deleted": sum(map(len, deleted)),
        "already": 0,
        "batches": sum(-(-len(ids) // 500) for ids in [*deleted, gone["reports"]]),
        "errors": 0,
    }
    assert tenant.run("retention.archive_audit_log", zone=zone) == {
        "archived": len(gone["audit_log"]) - len(already),
        "deleted": 0,
        "already": len(already),
        "batches": -(-len(gone["audit_log"]) // 500),
        "errors": 0,
    }

    assert all(gone.values())
    assert already
    del kept["archived_records"]
    for table, ids in kept.items():
        assert {row["id"] for row in tenant.rows(table)} == ids, table
    copies = chosen(tenant.rows("archived_records"), archived_at=S)
    assert {(row["source_table"], row["source_id"]) for row in copies} == {
        *(("reports", number) for number in gone["reports"]),
        *(("audit_log", number) for number in {*gone["audit_log"]} - already),
    }


def test_retention(tenant: TenantDatabase, planned: DemoTenant) -> None:
    hold_retention(tenant, planned.zone)


def test_retention_of_a_large_tenant(tenant: TenantDatabase) -> None:
    *_, large = fleet(8)
    assert large.defect is Defect.LARGE
    fill(tenant, large)

    hold_retention(tenant, large.zone)
