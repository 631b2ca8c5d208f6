"""reports.usage"""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from jobs.schema import audit_log, outbox, reports, users, work_items
from tests.jobs.rows import action, admin, case, event, message, user
from tests.jobs.tenant import JOBS, TenantDatabase

JOB = "reports.usage"
NOTHING = {
    "logins": 0,
    "users": 0,
    "audit_events": 0,
    "existing": 0,
    "messages": 0,
    "errors": 0,
}
FIRST = datetime(2026, 2, 1, tzinfo=UTC)
END = datetime(2026, 3, 1, tzinfo=UTC)
#: One o'clock on the first day of the month after.
SLOT = END + timedelta(hours=1)
SECOND = timedelta(seconds=1)
#: Before, at the beginning, at the end, and after: two of them are in the month.
EDGES = (FIRST - SECOND, FIRST, END - SECOND, END)


def summary(tenant: TenantDatabase) -> dict[str, Any]:
    (report,) = tenant.rows(reports)
    found: dict[str, Any] = report["summary"]
    return found


def test_the_month_before_is_reported(tenant: TenantDatabase) -> None:
    tenant.add(users, admin(id=1, email="boss@example.org"))
    tenant.add(audit_log, event(END - SECOND), event(FIRST, action="logout"))

    assert tenant.run(JOB, slot=SLOT) == NOTHING | {"logins": 1, "audit_events": 2, "messages": 1}

    (report,) = tenant.rows(reports)
    assert (report["kind"], report["period_key"], report["slot"]) == ("usage", "2026-02", SLOT)
    (mail,) = tenant.rows(outbox)
    assert (mail["recipient"], mail["subject"]) == ("boss@example.org", "Usage in 2026-02")
    assert mail["body"] == report["body"]
    assert "logins: 1\n" in mail["body"]
    assert "logout: 1 times" in mail["body"]


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Pacific/Kiritimati"])
def test_the_month_ends_at_midnight_of_utc_for_every_tenant(tenant: TenantDatabase, zone) -> None:
    tenant.add(audit_log, *map(event, EDGES))

    assert tenant.run(JOB, slot=SLOT, zone=zone)["logins"] == 2


@pytest.mark.parametrize(
    ("slot", "month"),
    [
        ("2026-01-01T01:00", "2025-12"),
        ("2024-03-01T01:00", "2024-02"),
        ("2026-03-31T23:59:59", "2026-02"),
        ("2026-04-01T00:00", "2026-03"),
    ],
)
def test_the_month_is_the_one_before_that_of_the_slot(tenant: TenantDatabase, slot, month) -> None:
    tenant.run(JOB, slot=datetime.fromisoformat(f"{slot}+00:00"))

    assert [row["period_key"] for row in tenant.rows(reports)] == [month]


def test_a_second_run_of_the_slot_writes_nothing(tenant: TenantDatabase) -> None:
    tenant.add(users, admin(id=1))
    tenant.add(audit_log, event(FIRST))
    assert tenant.run(JOB, slot=SLOT)["logins"] == 1
    before = tenant.content()

    assert tenant.run(JOB, slot=SLOT) == NOTHING | {"existing": 1}
    assert tenant.content() == before


def test_each_figure_counts_the_rows_of_the_month(tenant: TenantDatabase) -> None:
    tenant.add(users, *(user(id=number, created_at=at) for number, at in enumerate(EDGES, 1)))
    tenant.add(work_items, *(action(closed_at=at, opened_at=FIRST) for at in EDGES))
    tenant.add(work_items, *(case(opened_at=at) for at in EDGES))
    tenant.add(outbox, *(message(status="sent", sent_at=at) for at in EDGES))

    tenant.run(JOB, slot=SLOT)

    assert summary(tenant) == {
        "logins": 0,
        "users": 0,
        "new_users": 2,
        "actions_closed": 2,
        "cases_opened": 2,
        "audit_events": 0,
        "messages": {"email": 2},
        "top_actions": [],
    }


def test_users_count_once_however_often_they_log_in(tenant: TenantDatabase) -> None:
    tenant.add(users, user(id=1), user(id=2), user(id=3))
    actors = [1, 1, 2, None, None]
    tenant.add(audit_log, *(event(FIRST) | {"actor_id": actor} for actor in actors))
    tenant.add(audit_log, event(FIRST, action="logout") | {"actor_id": 3})
    tenant.add(audit_log, event(END) | {"actor_id": 3})

    counters = tenant.run(JOB, slot=SLOT)

    assert counters == NOTHING | {"logins": 5, "users": 2, "audit_events": 6}


def test_messages_count_by_channel(tenant: TenantDatabase) -> None:
    channels = ["slack", "email", "slack", "webhook"]
    tenant.add(outbox, *(message(channel=each, sent_at=FIRST) for each in channels))

    tenant.run(JOB, slot=SLOT)

    assert summary(tenant)["messages"] == {"slack": 2, "email": 1, "webhook": 1}


def test_the_five_most_frequent_actions_are_named_and_of_equal_ones_the_first(
    tenant: TenantDatabase,
) -> None:
    # By code point: MariaDB would put `a` before `B`.
    numbers = {"f": 1, "e": 1, "d": 2, "c": 3, "B": 1, "a": 1}
    for name, number in numbers.items():
        tenant.add(audit_log, *(event(FIRST, action=name) for _ in range(number)))

    tenant.run(JOB, slot=SLOT)

    assert summary(tenant)["top_actions"] == [["c", 3], ["d", 2], ["B", 1], ["a", 1], ["e", 1]]


RESULTS = [
    {
        "tenant": "a",
        "outcome": "succeeded",
        "counters": {"logins": 3, "users": 2, "audit_events": 9, "existing": 0},
    },
    {"tenant": "b", "outcome": "failed", "counters": {}},
    {
        "tenant": "c",
        "outcome": "succeeded",
        "counters": {"logins": 1, "users": 1, "audit_events": 1},
    },
]


def test_the_figures_of_all_tenants_are_sent_to_whoever_shall_have_them(
    tenant: TenantDatabase,
) -> None:
    summarize = JOBS[JOB].summarize
    assert summarize is not None
    with tenant.context(JOB, slot=SLOT, fleet_report_to="boss@example.org") as ctx:
        ctx._results = lambda: RESULTS
        counters = summarize(ctx)

    assert counters == {"tenants": 3, "logins": 4, "users": 3, "audit_events": 10, "messages": 1}
    (mail,) = tenant.rows(outbox)
    assert mail["dedupe_key"] == "usage:2026-02:fleet"
    assert mail["recipient"] == "boss@example.org"
    assert mail["body"].splitlines() == [
        "tenant,outcome,logins,users,audit_events",
        "a,succeeded,3,2,9",
        "b,failed,,,",
        "c,succeeded,1,1,1",
    ]


def test_without_an_address_the_totals_are_only_logged(tenant: TenantDatabase) -> None:
    summarize = JOBS[JOB].summarize
    assert summarize is not None
    with tenant.context(JOB, slot=SLOT) as ctx, capture_logs() as lines:
        ctx._results = lambda: RESULTS
        assert summarize(ctx)["messages"] == 0

    assert (lines[0]["month"], lines[0]["logins"]) == ("2026-02", 4)
    assert tenant.rows(outbox) == []


@pytest.mark.parametrize("value", ["nobody", "a@b@c", "a b@c"])
def test_what_is_no_address_is_refused(value) -> None:
    with pytest.raises(ValueError, match="expected an e-mail address"):
        JOBS[JOB].options["fleet_report_to"].read(value)
