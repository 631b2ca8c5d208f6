"""operations.health_check"""

from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import count

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from jobs.schema import backups, integrations, job_items, outbox, reports, users
from tests.jobs.rows import admin, backup, integration, job_item, mailbox, message, user
from tests.jobs.tenant import JOBS, S, TenantDatabase, ago

JOB = "operations.health_check"
NOTHING = {"ok": 0, "warning": 0, "fail": 0, "alerts": 0, "existing": 0, "errors": 0}
SECOND = timedelta(seconds=1)


def drop(tenant: TenantDatabase, table: str) -> None:
    with tenant.engine.begin() as connection:
        connection.execute(text(f"DROP TABLE {table}"))


def component(tenant: TenantDatabase, name: str, **settings) -> str:
    """Look at one component and return what was found."""
    tenant.run(JOB, components=name, **settings)
    (report,) = tenant.rows(reports)
    return str(report["summary"]["components"][name]["status"])


def test_a_clean_tenant_is_ok_in_all_seven_components(tenant: TenantDatabase) -> None:
    assert tenant.run(JOB) == NOTHING | {"ok": 7}

    (report,) = tenant.rows(reports)
    assert (report["kind"], report["period_key"]) == ("health", "2026-03-01T00:00:00Z")
    assert report["slot"] == report["created_at"] == S
    assert report["summary"]["status"] == "ok"


def test_a_missing_table_is_a_failing_schema(tenant: TenantDatabase) -> None:
    drop(tenant, "rate_limits")

    assert tenant.run(JOB) == NOTHING | {"ok": 6, "fail": 1}

    (report,) = tenant.rows(reports)
    assert report["summary"]["status"] == "fail"
    assert report["summary"]["components"]["schema"] == {
        "status": "fail",
        "detail": "lacks rate_limits",
    }


def test_a_component_that_cannot_be_looked_at_fails_and_the_others_go_on(
    tenant: TenantDatabase,
) -> None:
    drop(tenant, "outbox")
    tenant.add(backups, backup())

    assert tenant.run(JOB) == NOTHING | {"ok": 4, "warning": 1, "fail": 2}

    (report,) = tenant.rows(reports)
    found = {name: each["status"] for name, each in report["summary"]["components"].items()}
    assert found["outbox"] == found["schema"] == "fail"
    assert found["backups"] == "warning"


@pytest.mark.parametrize("tenant", ["sqlite"], indirect=True)  # stores what its columns forbid
def test_a_value_that_cannot_be_read_fails_its_component(tenant: TenantDatabase) -> None:
    tenant.add(backups, backup(verified_at=S, verify_status="ok"))
    with tenant.engine.begin() as connection:
        connection.execute(text("UPDATE backups SET verified_at = 'yesterday'"))

    assert component(tenant, "backups") == "fail"


def test_components_can_be_chosen(tenant: TenantDatabase) -> None:
    assert tenant.run(JOB, components="database, Outbox") == NOTHING | {"ok": 2}


@pytest.mark.parametrize("everything", ["", "all", "ALL,database"])
def test_all_components_are_looked_at_when_none_is_left_out(
    tenant: TenantDatabase, everything
) -> None:
    assert tenant.run(JOB, components=everything) == NOTHING | {"ok": 7}


def test_an_unknown_component_is_refused() -> None:
    with pytest.raises(ValueError, match="databse"):
        JOBS[JOB].options["components"].read("databse")


def test_the_environment_stands_behind_two_options() -> None:
    variables = {name: option.environment for name, option in JOBS[JOB].options.items()}

    assert variables["components"] == "HEALTH_CHECK_COMPONENTS"
    assert variables["alert_on_failure"] == "ALERT_ON_FAILURE"


def stepping(step: timedelta) -> Callable[[], datetime]:
    steps = count()
    return lambda: S + next(steps) * step


@pytest.mark.parametrize(
    ("took", "found"),
    [(timedelta(seconds=1), "ok"), (timedelta(seconds=1, microseconds=1), "warning")],
)
def test_a_database_that_takes_more_than_a_second_is_a_warning(
    tenant: TenantDatabase, took, found
) -> None:
    assert component(tenant, "database", clock=stepping(took)) == found


def test_how_slow_is_slow_can_be_set(tenant: TenantDatabase) -> None:
    clock = stepping(timedelta(milliseconds=300))

    assert component(tenant, "database", clock=clock, slow_ms=200) == "warning"


@pytest.mark.parametrize(
    ("row", "found"),
    [
        pytest.param(message(not_before=ago(minutes=30)), "ok", id="due for 30 min"),
        pytest.param(message(not_before=ago(minutes=30) - SECOND), "warning", id="a second longer"),
        pytest.param(message(not_before=ago(hours=24)), "warning", id="due for 24 h"),
        pytest.param(message(not_before=ago(hours=24) - SECOND), "fail", id="24 h and a second"),
        pytest.param(message(not_before=S + SECOND), "ok", id="not due"),
        pytest.param(message(not_before=ago(days=9), status="sent"), "ok", id="sent"),
        pytest.param(message(status="dead", created_at=ago(hours=24)), "ok", id="died long ago"),
        pytest.param(
            message(status="dead", created_at=ago(hours=24) + SECOND), "warning", id="just died"
        ),
    ],
)
def test_the_outbox_is_judged_by_its_oldest_due_message(tenant: TenantDatabase, row, found) -> None:
    tenant.add(outbox, row)

    assert component(tenant, "outbox") == found


@pytest.mark.parametrize(
    ("states", "found"),
    [
        ([], "ok"),
        (["ok", "ok"], "ok"),
        (["ok", "degraded"], "warning"),
        (["unsupported", "degraded"], "fail"),
    ],
)
@pytest.mark.parametrize(
    ("name", "make", "other"),
    [("integrations", integration, mailbox), ("email_sync", mailbox, integration)],
)
def test_integrations_and_mailboxes_are_judged_by_their_states(  # noqa: PLR0913, PLR0917 - a row of the table
    tenant: TenantDatabase, name, make, other, states, found
) -> None:
    tenant.add(integrations, *(make(state=state) for state in states))
    tenant.add(integrations, make(state="failing", enabled=False), other(state="failing"))

    assert component(tenant, name) == found


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        pytest.param([backup()], "warning", id="never verified"),
        pytest.param([backup(verified_at=ago(days=8), verify_status="ok")], "ok", id="8 days"),
        pytest.param(
            [backup(verified_at=ago(days=8) - SECOND, verify_status="ok")], "warning", id="longer"
        ),
        pytest.param([backup(verified_at=S, verify_status="corrupt")], "fail", id="corrupt"),
        pytest.param([backup(verified_at=S, verify_status="shrunk")], "ok", id="only suspicious"),
        pytest.param(
            [
                backup(verified_at=ago(days=7), verify_status="unreadable"),
                backup(verified_at=ago(days=1), verify_status="ok"),
            ],
            "ok",
            id="mended since",
        ),
        pytest.param(
            [
                backup(verified_at=ago(days=7), verify_status="ok"),
                backup(verified_at=ago(days=1), verify_status="stale"),
                backup(component="files", verified_at=ago(days=1), verify_status="ok"),
                backup(component="mail"),
            ],
            "fail",
            id="the worst component counts",
        ),
    ],
)
def test_each_backup_component_is_judged_by_its_latest_verification(
    tenant: TenantDatabase, rows, found
) -> None:
    tenant.add(backups, *rows)

    assert component(tenant, "backups") == found


@pytest.mark.parametrize(
    ("row", "found"),
    [
        (job_item(attempts=2), "ok"),
        (job_item(attempts=3), "warning"),
        (job_item(attempts=3, state="done"), "ok"),
    ],
)
def test_an_item_that_failed_three_times_is_a_warning(tenant: TenantDatabase, row, found) -> None:
    tenant.add(job_items, row)

    assert component(tenant, "jobs") == found


def test_a_second_run_of_the_slot_keeps_the_report_and_tells_nobody(
    tenant: TenantDatabase,
) -> None:
    tenant.add(users, admin())
    drop(tenant, "rate_limits")
    assert tenant.run(JOB, alert_on_failure=True)["alerts"] == 1
    reported, queued = tenant.rows(reports), tenant.rows(outbox)

    assert tenant.run(JOB, alert_on_failure=True) == NOTHING | {"existing": 1}
    assert (tenant.rows(reports), tenant.rows(outbox)) == (reported, queued)


def test_the_administrators_are_told_when_it_begins_and_when_it_ends(
    tenant: TenantDatabase,
) -> None:
    tenant.add(users, admin(id=1, email="a@example.org"), admin(id=2, email="b@example.org"))
    tenant.add(backups, backup(id=1, verified_at=S, verify_status="corrupt"))

    def told(hours: int) -> int:
        slot = S + timedelta(hours=hours)
        return tenant.run(JOB, slot=slot, components="backups", alert_on_failure=True)["alerts"]

    assert (told(0), told(1)) == (2, 0)
    with tenant.engine.begin() as connection:
        connection.execute(backups.update().values(verify_status="ok"))
    # A verification of more than eight days ago is a warning, which is not told.
    assert (told(2), told(3), told(8 * 24 + 1)) == (2, 0, 0)

    messages = tenant.rows(outbox)
    assert [each["recipient"] for each in messages] == ["a@example.org", "b@example.org"] * 2
    assert {each["source_job"] for each in messages} == {JOB}
    assert "backups: fail (database is corrupt)" in messages[0]["body"]
    assert "no longer" in messages[2]["subject"]


def test_nobody_is_told_unless_asked_for(tenant: TenantDatabase) -> None:
    tenant.add(users, admin())
    tenant.add(integrations, mailbox(state="failing"))

    assert tenant.run(JOB) == NOTHING | {"ok": 6, "fail": 1}
    assert tenant.rows(outbox) == []


def test_only_active_administrators_with_an_address_are_told(tenant: TenantDatabase) -> None:
    tenant.add(
        users,
        admin(email="told@example.org"),
        admin(email="no address"),
        admin(status="disabled"),
        user(role="manager"),
    )
    tenant.add(integrations, mailbox(state="failing"))

    assert tenant.run(JOB, alert_on_failure=True)["alerts"] == 1
    assert [each["recipient"] for each in tenant.rows(outbox)] == ["told@example.org"]


def test_without_the_table_of_reports_the_error_of_the_database_is_raised(
    tenant: TenantDatabase,
) -> None:
    drop(tenant, "reports")

    with pytest.raises(DBAPIError, match="reports"):
        tenant.run(JOB)
