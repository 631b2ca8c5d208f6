"""reports.inactive_users"""

from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from jobs.schema import outbox, reports, users
from tests.jobs.rows import admin, user
from tests.jobs.tenant import JOBS, S, TenantDatabase, ago

JOB = "reports.inactive_users"
NOTHING = {"inactive": 0, "never_logged_in": 0, "existing": 0, "messages": 0, "errors": 0}
LONG_AGO = datetime(2025, 11, 1, tzinfo=UTC)


def present_admin(**values):
    return admin(last_login_at=ago(days=1), **values)


def test_a_user_who_was_long_away_is_reported(tenant: TenantDatabase) -> None:
    tenant.add(users, present_admin(id=1, email="boss@example.org"))
    tenant.add(users, user(name="Åsa 🎁", email="asa@example.org", last_login_at=LONG_AGO))

    assert tenant.run(JOB) == NOTHING | {"inactive": 1, "messages": 1}

    (report,) = tenant.rows(reports)
    assert (report["kind"], report["period_key"]) == ("inactive_users", "2026-03-01")
    assert report["slot"] == report["created_at"] == S
    assert report["summary"] == {"inactive": 1, "never_logged_in": 0, "days": 90}
    assert report["body"] == "Åsa 🎁 <asa@example.org>, last seen 2025-11-01"
    (message,) = tenant.rows(outbox)
    assert message["recipient"] == "boss@example.org"
    assert message["body"] == report["body"]


def test_a_second_run_of_the_slot_writes_nothing(tenant: TenantDatabase) -> None:
    tenant.add(users, present_admin(), user(last_login_at=LONG_AGO))
    assert tenant.run(JOB)["inactive"] == 1
    before = tenant.content()

    assert tenant.run(JOB) == NOTHING | {"existing": 1}
    assert tenant.content() == before


@pytest.mark.parametrize(
    ("seen_at", "inactive"),
    [(ago(days=90, seconds=1), 1), (ago(days=90), 1), (ago(days=90, seconds=-1), 0)],
)
@pytest.mark.parametrize("column", ["last_login_at", "created_at"])
def test_a_user_is_inactive_after_ninety_days(
    tenant: TenantDatabase, column, seen_at, inactive
) -> None:
    tenant.add(users, user(**{column: seen_at}))

    counters = tenant.run(JOB)

    assert counters["inactive"] == inactive
    assert counters["never_logged_in"] == (inactive if column == "created_at" else 0)


@pytest.mark.parametrize("status", ["invited", "disabled"])
def test_only_active_users_can_be_inactive(tenant: TenantDatabase, status) -> None:
    tenant.add(users, user(status=status, last_login_at=LONG_AGO))

    assert tenant.run(JOB) == NOTHING


def test_a_report_that_names_nobody_is_kept_and_not_sent(tenant: TenantDatabase) -> None:
    tenant.add(users, present_admin())

    assert tenant.run(JOB) == NOTHING
    assert [row["body"] for row in tenant.rows(reports)] == [""]
    assert tenant.rows(outbox) == []


def test_after_how_many_days_can_be_set(tenant: TenantDatabase) -> None:
    tenant.add(users, user(last_login_at=ago(days=7)), user(last_login_at=ago(days=6)))

    assert tenant.run(JOB, days=7)["inactive"] == 1


def test_who_never_logged_in_is_named_as_such(tenant: TenantDatabase) -> None:
    tenant.add(users, user(name="Ole", email="ole@example.org"), user(last_login_at=LONG_AGO))

    assert tenant.run(JOB) == NOTHING | {"inactive": 2, "never_logged_in": 1}
    assert tenant.rows(reports)[0]["body"].startswith("Ole <ole@example.org>, never seen\n")


@pytest.mark.parametrize(("number", "lines"), [(500, 500), (502, 501)])
def test_a_long_list_is_cut(tenant: TenantDatabase, number, lines) -> None:
    tenant.add(users, *(user(last_login_at=LONG_AGO) for _ in range(number)))

    assert tenant.run(JOB)["inactive"] == number

    body = tenant.rows(reports)[0]["body"].splitlines()
    assert len(body) == lines
    assert (body[-1] == "and 2 more") is (number > 500)


def test_the_day_is_the_tenants(tenant: TenantDatabase) -> None:
    tenant.add(users, user(last_login_at=LONG_AGO))

    tenant.run(JOB, zone="America/New_York")

    (report,) = tenant.rows(reports)
    assert report["period_key"] == "2026-02-28"
    assert report["body"].endswith("last seen 2025-10-31")
    assert tenant.run(JOB, zone="America/New_York", slot=S + timedelta(hours=5))["inactive"] == 1


def test_the_fleets_tenants_are_named_by_their_count(tenant: TenantDatabase) -> None:
    summarize = JOBS[JOB].summarize
    assert summarize is not None
    counts = {"a": 2, "b": 7, "c": 0, "d": 2}
    results = [{"tenant": name, "counters": {"inactive": n}} for name, n in counts.items()]
    results.append({"tenant": "e", "counters": {}})

    with tenant.context(JOB) as ctx, capture_logs() as lines:
        ctx._results = lambda: results
        counters = summarize(ctx)

    assert counters == {"tenants": 3, "inactive": 11}
    assert list(lines[0]["most"].items()) == [("b", 7), ("a", 2), ("d", 2)]
