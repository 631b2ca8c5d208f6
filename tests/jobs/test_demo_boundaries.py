"""On each boundary of a job, and a second or a day beside it, every tenant of the demo has a row."""

from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from demo.planting import contents, scene_of
from demo.tenants import DemoTenant
from tests.jobs.demo_rows import TENANTS, Row, chosen, today
from tests.jobs.tenant import S, ago

SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


@pytest.fixture(params=TENANTS, ids=lambda each: each.name)
def planned(request: pytest.FixtureRequest) -> DemoTenant:
    chosen_tenant: DemoTenant = request.param
    return chosen_tenant


@pytest.fixture
def rows(planned: DemoTenant) -> dict[str, list[Row]]:
    return contents(planned, scene_of(planned, seed=1, at=S))


def has_state(*states: str) -> Callable[[Row], bool]:
    return lambda row: bool({row.get("state"), row.get("status")} & {*states})


def anything(_: Row) -> bool:
    return True


def is_plain(row: Row) -> bool:
    return row["state"] == "new" and row["read_at"] is None


#: Job, table, column, which rows, and the instants that are on both sides.
Boundary = tuple[str, str, str, Callable[[Row], bool], Iterable[datetime]]

INSTANTS: list[Boundary] = [
    ("cleanup.tokens", "auth_tokens", "expires_at", anything, (S, S + SECOND)),
    ("cleanup.tokens", "auth_tokens", "used_at", anything, (ago(hours=24), ago(hours=24) + SECOND)),
    ("cleanup.sessions", "user_sessions", "expires_at", anything, (S, S + SECOND)),
    ("cleanup.rate_limits", "rate_limits", "expires_at", anything, (S, S + SECOND)),
    ("drift_snapshot", "control_evidence", "collected_at", anything, (S, S + SECOND)),
    ("drift_snapshot", "compliance_snapshots", "slot", anything,
     [ago(days=days) + beside for days in (7, 30, 90) for beside in (SECOND, 0 * SECOND)]),
    ("auto_complete", "exchanges", "exchange_at", has_state("matched"), (S, S + SECOND)),
    ("purge", "exchanges", "completed_at", has_state("completed"),
     [ago(days=days) + beside for days in (30, 23) for beside in (SECOND, 0 * SECOND)]),
    ("dispatch", "notifications", "created_at", is_plain,
     (ago(hours=72), ago(hours=72) - SECOND, S, S + SECOND)),
    ("apply_policies", "notifications", "created_at", has_state("queued"),
     (ago(days=180), ago(days=180) - SECOND)),
    ("apply_policies", "outbox", "created_at", has_state("sent", "dead", "cancelled"),
     (ago(days=90), ago(days=90) - SECOND)),
    ("apply_policies", "reports", "created_at", anything, (ago(days=730), ago(days=730) - SECOND)),
    ("apply_policies", "archived_records", "archived_at", anything,
     (ago(days=2555), ago(days=2555) - SECOND)),
    ("apply_policies", "job_items", "slot", has_state("done"),
     (ago(days=400), ago(days=400) - SECOND)),
    ("archive_audit_log", "audit_log", "created_at", anything,
     (ago(days=365), ago(days=365) - SECOND)),
    ("verify_backups", "backups", "finished_at", has_state("finished"),
     (ago(hours=48), ago(hours=48) - SECOND, S + SECOND)),
    ("inactive_users", "users", "last_login_at", has_state("active"),
     (ago(days=90), ago(days=90) + SECOND)),
    ("refresh_integrations", "integrations", "token_expires_at", lambda row: row["kind"] == "oauth",
     (S + 48 * HOUR, S + 48 * HOUR + SECOND)),
    ("email_sync_monitor", "integrations", "last_ok_at", lambda row: row["kind"] == "mailbox",
     (ago(minutes=60), ago(minutes=60) - SECOND, S + 5 * HOUR / 60)),
    ("email_sync_monitor", "integrations", "alerted_at", anything,
     (ago(hours=24), ago(hours=24) + SECOND)),
]  # fmt: skip


@pytest.mark.parametrize("boundary", INSTANTS, ids=lambda each: f"{each[0]}-{each[1]}-{each[2]}")
def test_instants(rows: dict[str, list[Row]], boundary: Boundary) -> None:
    job, table, column, is_meant, wanted = boundary

    assert {*wanted} <= {row[column] for row in filter(is_meant, rows[table])}, job


#: Rows of which a day or a month has some: table, column, and which of them.
Dated = tuple[str, str, dict[str, str]]

DATED: list[Dated] = [
    ("audit_log", "created_at", {"action": "login"}),
    ("outbox", "sent_at", {"status": "sent"}),
    *(
        ("work_items", column, {"kind": kind})
        for column in ("opened_at", "closed_at")
        for kind in ("action", "case")
    ),
]


def test_ends_of_yesterday(rows: dict[str, list[Row]], planned: DemoTenant) -> None:
    midnight = datetime.combine(today(planned), time(), ZoneInfo(planned.zone))
    start, end = (midnight - DAY).astimezone(UTC), midnight.astimezone(UTC)

    others: list[Dated] = [("notifications", "created_at", {}), ("exchanges", "completed_at", {})]
    for table, column, which in (*DATED, *others):
        found = {row[column] for row in chosen(rows[table], **which)}
        assert {start - SECOND, start, end - SECOND, end} <= found, table


def test_ends_of_the_last_month(rows: dict[str, list[Row]]) -> None:
    start = datetime(2026, 2, 1, tzinfo=UTC)

    for table, column, which in (*DATED, ("users", "created_at", {})):
        found = {row[column] for row in chosen(rows[table], **which)}
        assert {start - SECOND, start, S - SECOND, S} <= found, table


def test_dates(rows: dict[str, list[Row]], planned: DemoTenant) -> None:
    here = today(planned)
    for kind in ("subscription", "credential", "certificate"):
        left = {
            (row["expires_on"] - here).days
            for row in chosen(rows["expiring_assets"], kind=kind)
            if row["expires_on"]
        }
        assert {-31, -30, 0, 1, 7, 8, 14, 15, 30, 31, 60, 61} <= left
    valid = {row["valid_until"] for row in chosen(rows["control_evidence"], collected_at=S)}
    assert {here, here - DAY} <= valid
    due = {row["due_date"] for row in chosen(rows["work_items"], status="created")}
    assert {here, here - DAY, None} <= due


def test_reminders(rows: dict[str, list[Row]], planned: DemoTenant) -> None:
    zone = ZoneInfo(planned.zone)
    at = {
        (row["exchange_at"].astimezone(zone) - DAY).astimezone(S.tzinfo)
        for row in chosen(rows["exchanges"], state="matched", timezone=planned.zone)
    }

    late = {S - moment for moment in at}
    grace, missed = timedelta(hours=1), timedelta(minutes=75)
    edges: set[Any] = {timedelta(0), -SECOND, grace, grace + SECOND, missed, missed + SECOND}
    assert edges <= late


def test_reviews(rows: dict[str, list[Row]], planned: DemoTenant) -> None:
    local = S.astimezone(ZoneInfo(planned.zone))

    hours = {row["run_hour"] for row in chosen(rows["uar_comparisons"], frequency="daily")}
    assert {local.hour, local.hour + 1} <= hours
    days = {row["run_day"] for row in chosen(rows["uar_comparisons"], frequency="monthly")}
    assert days == {None, 31}
    attempts = {(row["status"], row["attempts"]) for row in rows["uar_executions"]}
    assert attempts == {("done", 1), ("failed", 2), ("failed", 3)}


def test_rates(rows: dict[str, list[Row]]) -> None:
    known = {row["quote"]: row["rate_date"] for row in rows["exchange_rates"]}

    assert known == {
        **dict.fromkeys(("GBP", "CHF"), date(2026, 2, 27)),
        **dict.fromkeys(("JPY", "SEK"), date(2026, 3, 1)),
    }
