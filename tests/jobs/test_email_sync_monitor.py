"""operations.email_sync_monitor"""

from datetime import timedelta

import pytest
from sqlalchemy import update

from jobs.schema import integrations, job_items, outbox, users
from tests.jobs.rows import admin, integration, mailbox
from tests.jobs.tenant import S, TenantDatabase, ago

JOB = "operations.email_sync_monitor"
NOTHING = dict.fromkeys(("ok", "stale", "failing", "never", "alerts", "recovered", "errors"), 0)
TICK = timedelta(minutes=30)


def change(tenant: TenantDatabase, **values) -> None:
    with tenant.engine.begin() as connection:
        connection.execute(update(integrations).values(values))


def test_a_mailbox_last_read_two_hours_ago_is_stale_and_is_told_once(
    tenant: TenantDatabase,
) -> None:
    tenant.add(users, admin(email="admin@example.org"))
    tenant.add(integrations, mailbox(last_ok_at=ago(hours=2)))

    assert tenant.run(JOB) == NOTHING | {"stale": 1, "alerts": 1}
    assert tenant.run(JOB, slot=S + TICK) == NOTHING | {"stale": 1}

    (row,) = tenant.rows(integrations)
    assert (row["state"], row["alerted_state"], row["alerted_at"]) == ("stale", "stale", S)
    (message,) = tenant.rows(outbox)
    assert (message["recipient"], message["source_job"]) == ("admin@example.org", JOB)
    assert "inbox@example.org is stale" in message["subject"]
    assert "2026-02-28 22:00:00 UTC" in message["body"]


@pytest.mark.parametrize(
    ("row", "state"),
    [
        pytest.param(mailbox(last_ok_at=ago(minutes=60)), "ok", id="60 min ago"),
        pytest.param(mailbox(last_ok_at=ago(minutes=60, seconds=1)), "stale", id="a second more"),
        pytest.param(mailbox(last_ok_at=S + timedelta(minutes=5)), "ok", id="a clock that is fast"),
        pytest.param(mailbox(last_ok_at=S, failures=2), "ok", id="two failures"),
        pytest.param(mailbox(last_ok_at=S, failures=3), "failing", id="three failures"),
        pytest.param(mailbox(last_ok_at=ago(days=9), failures=4), "failing", id="both"),
        pytest.param(mailbox(failures=3), "failing", id="three failures and never read"),
        pytest.param(mailbox(created_at=ago(minutes=60)), "ok", id="new"),
        pytest.param(mailbox(created_at=ago(minutes=60, seconds=1)), "never", id="not new"),
    ],
)
def test_each_mailbox_has_one_state_which_is_kept(tenant: TenantDatabase, row, state) -> None:
    tenant.add(integrations, row | {"state": "unknown"})

    assert tenant.run(JOB) == NOTHING | {state: 1}
    assert tenant.rows(integrations)[0]["state"] == state


def test_how_long_is_too_long_can_be_said(tenant: TenantDatabase) -> None:
    tenant.add(integrations, mailbox(last_ok_at=ago(hours=3)), mailbox(created_at=ago(hours=3)))

    assert tenant.run(JOB, stale_min=180) == NOTHING | {"ok": 2}
    assert tenant.run(JOB, stale_min=179) == NOTHING | {"stale": 1, "never": 1}


def test_a_second_run_of_the_slot_changes_nothing(tenant: TenantDatabase) -> None:
    tenant.add(users, admin())
    tenant.add(
        integrations,
        mailbox(last_ok_at=ago(hours=2)),
        mailbox(last_ok_at=S, alerted_state="stale", alerted_at=ago(hours=1), state="stale"),
        mailbox(last_ok_at=S + timedelta(minutes=6)),
    )
    counted = NOTHING | {"stale": 1, "alerts": 1, "ok": 1, "recovered": 1, "errors": 1}
    assert tenant.run(JOB) == counted
    before = tenant.content()

    assert tenant.run(JOB) == counted | {"alerts": 0, "recovered": 0}
    assert tenant.content() == before


def test_what_is_still_bad_is_told_again_after_24_hours(tenant: TenantDatabase) -> None:
    tenant.add(users, admin())
    tenant.add(integrations, mailbox(last_ok_at=ago(hours=2)))
    day = timedelta(hours=24)

    told = [tenant.run(JOB, slot=S + after)["alerts"] for after in (day * 0, day - TICK, day)]

    assert told == [1, 0, 1]
    assert tenant.rows(integrations)[0]["alerted_at"] == S + day


def test_another_state_is_told_at_once(tenant: TenantDatabase) -> None:
    tenant.add(users, admin())
    tenant.add(integrations, mailbox(last_ok_at=ago(hours=2)))
    tenant.run(JOB)
    change(tenant, failures=3)

    assert tenant.run(JOB, slot=S + TICK) == NOTHING | {"failing": 1, "alerts": 1}


def test_a_mailbox_that_is_well_again_is_told_once(tenant: TenantDatabase) -> None:
    tenant.add(users, admin())
    tenant.add(integrations, mailbox(last_ok_at=ago(hours=2)))
    tenant.run(JOB)
    change(tenant, last_ok_at=S + TICK)

    assert tenant.run(JOB, slot=S + TICK) == NOTHING | {"ok": 1, "recovered": 1}
    assert tenant.run(JOB, slot=S + 2 * TICK) == NOTHING | {"ok": 1}

    (row,) = tenant.rows(integrations)
    assert (row["state"], row["alerted_state"], row["alerted_at"]) == ("ok", None, None)
    assert "ok again" in tenant.rows(outbox)[1]["subject"]


def test_each_administrator_is_told_of_each_mailbox(tenant: TenantDatabase) -> None:
    tenant.add(users, admin(), admin(), admin(status="disabled"))
    tenant.add(integrations, *(mailbox(last_ok_at=ago(hours=2)) for _ in range(2)))

    assert tenant.run(JOB)["alerts"] == 4


def test_what_nobody_could_be_told_is_told_as_soon_as_there_is_somebody(
    tenant: TenantDatabase,
) -> None:
    tenant.add(integrations, mailbox(last_ok_at=ago(hours=2)))
    assert tenant.run(JOB) == NOTHING | {"stale": 1}
    tenant.add(users, admin())

    assert tenant.run(JOB, slot=S + TICK) == NOTHING | {"stale": 1, "alerts": 1}


def test_a_mailbox_read_in_the_future_is_an_error_and_the_others_go_on(
    tenant: TenantDatabase,
) -> None:
    future = S + timedelta(minutes=5, seconds=1)
    tenant.add(integrations, mailbox(id=1, last_ok_at=future), mailbox(id=2, last_ok_at=S))

    assert tenant.run(JOB) == NOTHING | {"ok": 1, "errors": 1}

    (item,) = tenant.rows(job_items)
    assert (item["item"], item["state"]) == ("1", "error")


def test_what_is_no_enabled_mailbox_is_left_alone(tenant: TenantDatabase) -> None:
    tenant.add(
        integrations,
        mailbox(enabled=False, failures=9),
        integration(failures=9),
        integration(kind="oauth", last_ok_at=ago(days=9)),
    )
    before = tenant.content()

    assert tenant.run(JOB) == NOTHING
    assert tenant.content() == before


def test_the_health_check_finds_the_state(tenant: TenantDatabase) -> None:
    tenant.add(integrations, mailbox(last_ok_at=ago(hours=2)), mailbox(last_ok_at=S))
    tenant.run(JOB)

    health = tenant.run("operations.health_check", components="email_sync")
    assert (health["ok"], health["warning"]) == (0, 1)

    change(tenant, last_ok_at=S + TICK)
    tenant.run(JOB, slot=S + TICK)
    assert tenant.run("operations.health_check", slot=S + TICK, components="email_sync")["ok"] == 1
