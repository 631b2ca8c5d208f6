"""reports.overnight"""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from jobs.schema import outbox, reports, users, work_items
from tests.jobs.rows import action, admin, case, message, user
from tests.jobs.tenant import JOBS, S, TenantDatabase, ago

JOB = "reports.overnight"
NOTHING = {
    "opened": 0,
    "closed": 0,
    "unassigned": 0,
    "overdue": 0,
    "dead": 0,
    "messages": 0,
    "existing": 0,
    "errors": 0,
}
SLOT = S + timedelta(hours=2)
SECOND = timedelta(seconds=1)
#: Before, at the beginning, at the end, and after yesterday: two of them are in it.
EDGES = (ago(days=1, seconds=1), ago(days=1), ago(seconds=1), S)


def closed_case(**values: Any) -> dict[str, Any]:
    return case(**{"status": "closed", "opened_at": ago(days=20), **values})


def mails(tenant: TenantDatabase) -> list[dict[str, Any]]:
    return [row for row in tenant.rows(outbox) if row["source_job"] == JOB]


def test_cases_of_yesterday_are_reported_to_the_manager(tenant: TenantDatabase) -> None:
    tenant.add(users, user(id=1, role="manager", email="boss@example.org"))
    tenant.add(work_items, *(closed_case(opened_at=ago(hours=hours)) for hours in (1, 2)))

    assert tenant.run(JOB, slot=SLOT) == NOTHING | {"opened": 2, "messages": 1}

    (report,) = tenant.rows(reports)
    assert (report["kind"], report["period_key"], report["slot"]) == (
        "overnight",
        "2026-02-28",
        SLOT,
    )
    (mail,) = mails(tenant)
    assert (mail["recipient"], mail["subject"]) == ("boss@example.org", "Report of 2026-02-28")
    assert mail["body"] == report["body"]
    assert mail["body"].startswith("Cases opened: 2\n")


def test_a_second_run_of_the_slot_writes_nothing(tenant: TenantDatabase) -> None:
    tenant.add(users, admin(id=1))
    tenant.add(work_items, case())
    assert tenant.run(JOB, slot=SLOT)["messages"] == 1
    before = tenant.content()

    assert tenant.run(JOB, slot=SLOT) == NOTHING | {"existing": 1}
    assert tenant.content() == before


def test_yesterday_ends_before_midnight(tenant: TenantDatabase) -> None:
    tenant.add(work_items, *(closed_case(opened_at=at) for at in EDGES))
    tenant.add(work_items, *(closed_case(closed_at=at) for at in EDGES))
    tenant.add(outbox, *(message(status="dead", created_at=at) for at in EDGES))
    tenant.add(outbox, *(message(status="sent", created_at=at) for at in EDGES))

    assert tenant.run(JOB, slot=SLOT) == NOTHING | {"opened": 2, "closed": 2, "dead": 2}


@pytest.mark.parametrize(
    ("zone", "slot", "end"),
    [
        ("Asia/Kolkata", SLOT, datetime(2026, 2, 28, 18, 30, tzinfo=UTC)),
        # There it is still yesterday's evening.
        ("America/New_York", SLOT, datetime(2026, 2, 28, 5, tzinfo=UTC)),
        # A day of 23 hours has ended.
        ("Europe/Berlin", datetime(2026, 3, 30, 2, tzinfo=UTC), datetime(2026, 3, 29, 22, tzinfo=UTC)),
    ],
)  # fmt: skip
def test_yesterday_is_the_tenants(tenant: TenantDatabase, zone, slot, end) -> None:
    tenant.add(work_items, closed_case(opened_at=end), closed_case(closed_at=end - SECOND))

    assert tenant.run(JOB, slot=slot, zone=zone) == NOTHING | {"closed": 1}


def test_yesterday_begins_an_hour_later_when_it_had_23_hours(tenant: TenantDatabase) -> None:
    start = datetime(2026, 3, 28, 23, tzinfo=UTC)
    tenant.add(work_items, closed_case(opened_at=start), closed_case(opened_at=start - SECOND))
    slot = datetime(2026, 3, 30, 2, tzinfo=UTC)

    assert tenant.run(JOB, slot=slot, zone="Europe/Berlin")["opened"] == 1


def test_cases_of_nobody_are_counted_while_they_are_open(tenant: TenantDatabase) -> None:
    tenant.add(users, user(id=1))
    tenant.add(
        work_items,
        case(status="open"),
        case(status="active"),
        case(status="closed"),
        case(status="open", owner_id=1),
        action(),
    )

    assert tenant.run(JOB, slot=SLOT) == NOTHING | {"unassigned": 2}


def test_overdue_actions_are_counted_by_owner(tenant: TenantDatabase) -> None:
    tenant.add(users, admin(id=1, name="Åsa"), user(id=2, name="Ole"))
    late = [action(is_overdue=True, owner_id=owner) for owner in (1, 2, 2, None)]
    tenant.add(
        work_items,
        *late,
        action(is_overdue=False, owner_id=1),
        action(is_overdue=None, owner_id=1),
        action(is_overdue=True, status="completed", owner_id=1),
        action(is_overdue=True, status="cancelled", owner_id=1),
    )

    assert tenant.run(JOB, slot=SLOT) == NOTHING | {"overdue": 4, "messages": 1}

    (report,) = tenant.rows(reports)
    assert report["summary"]["overdue_by_owner"] == {"1": 1, "2": 2, "": 1}
    lines = report["body"].splitlines()
    assert lines[lines.index("Overdue actions: 4") + 1 :][:3] == ["- Ole: 2", "- nobody: 1", "- Åsa: 1"]  # fmt: skip


def test_administrators_and_managers_are_told_who_can_be(tenant: TenantDatabase) -> None:
    tenant.add(
        users,
        admin(email="admin@example.org"),
        user(role="manager", email="manager@example.org"),
        user(role="member"),
        user(role="manager", status="disabled"),
        user(role="manager", email="nobody"),
    )
    tenant.add(work_items, case())

    assert tenant.run(JOB, slot=SLOT)["messages"] == 2
    assert [mail["recipient"] for mail in mails(tenant)] == [
        "admin@example.org",
        "manager@example.org",
    ]


@pytest.mark.parametrize(("send_empty", "messages"), [(False, 0), (True, 1)])
def test_a_report_with_nothing_in_it_is_kept_and_sent_only_on_demand(
    tenant: TenantDatabase, send_empty, messages
) -> None:
    tenant.add(users, admin(id=1))

    counters = tenant.run(JOB, slot=SLOT, send_empty=send_empty)

    assert counters == NOTHING | {"messages": messages}
    assert len(tenant.rows(reports)) == 1


def test_the_fleet_is_summed_up(tenant: TenantDatabase) -> None:
    summarize = JOBS[JOB].summarize
    assert summarize is not None
    overdue = {"a": 1, "b": 0, "c": 4, "d": 1, "e": 2, "f": 1, "g": 1}
    results = [
        {"tenant": name, "outcome": "succeeded", "counters": NOTHING | {"overdue": n, "dead": 1}}
        for name, n in overdue.items()
    ]
    results.append({"tenant": "h", "outcome": "timed_out", "counters": {}})
    results.append({"tenant": "i", "outcome": "skipped", "counters": {}})

    with tenant.context(JOB) as ctx, capture_logs() as lines:
        ctx._results = lambda: results
        counters = summarize(ctx)

    assert counters == {
        "opened": 0,
        "closed": 0,
        "unassigned": 0,
        "overdue": 10,
        "dead": 7,
        "failed": 1,
    }
    (line,) = lines
    assert list(line["most_overdue"].items()) == [("c", 4), ("e", 2), ("a", 1), ("d", 1), ("f", 1)]
    assert line["failed"] == ["h"]
