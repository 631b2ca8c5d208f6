"""exchanges.purge"""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from cronrunner import Skip
from jobs.schema import exchange_participants, exchanges, job_items, outbox, users
from tests.jobs.rows import admin, exchange, participant, user
from tests.jobs.tenant import JOBS, S, TenantDatabase, ago

JOB = "exchanges.purge"
NOTHING = {"purged": 0, "participants": 0, "warned": 0, "errors": 0}


def completed(**ago_parts: Any) -> dict[str, Any]:
    return exchange(completed_at=ago(**ago_parts))


def test_an_exchange_is_deleted_with_its_participants(tenant: TenantDatabase) -> None:
    tenant.add(exchanges, completed(days=31) | {"id": 1}, completed(days=1) | {"id": 2})
    tenant.add(exchange_participants, *(participant(1) for _ in range(4)), participant(2))

    assert tenant.run(JOB) == NOTHING | {"purged": 1, "participants": 4}

    assert [row["id"] for row in tenant.rows(exchanges)] == [2]
    assert [row["exchange_id"] for row in tenant.rows(exchange_participants)] == [2]


@pytest.mark.parametrize(
    ("parts", "counted"),
    [
        ({"days": 30, "seconds": 1}, {"purged": 1}),
        ({"days": 30}, {"purged": 1}),
        ({"days": 30, "seconds": -1}, {"warned": 1}),
        ({"days": 23}, {"warned": 1}),
        ({"days": 23, "seconds": -1}, {}),
        ({"days": 0}, {}),
    ],
)
def test_an_exchange_is_kept_for_thirty_days_and_announced_seven_before(
    tenant: TenantDatabase, parts, counted
) -> None:
    tenant.add(users, admin(id=1))
    tenant.add(exchanges, completed(**parts))

    assert tenant.run(JOB) == NOTHING | counted
    assert len(tenant.rows(outbox)) == counted.get("warned", 0)


def test_a_second_run_of_the_slot_writes_nothing(tenant: TenantDatabase) -> None:
    tenant.add(users, admin(id=1))
    tenant.add(exchanges, completed(days=31) | {"id": 1}, completed(days=25), exchange())
    tenant.add(exchange_participants, participant(1))
    assert tenant.run(JOB) == {"purged": 1, "participants": 1, "warned": 1, "errors": 1}
    before = tenant.content()

    assert tenant.run(JOB) == NOTHING | {"errors": 1}
    assert tenant.content() == before


def test_an_exchange_is_announced_once(tenant: TenantDatabase) -> None:
    tenant.add(users, admin(id=1))
    tenant.add(exchanges, completed(days=23) | {"id": 5})

    counted = [tenant.run(JOB, slot=S + timedelta(days=day)) for day in range(8)]

    assert [each["warned"] for each in counted] == [1] + [0] * 7
    assert [each["purged"] for each in counted] == [0] * 7 + [1]
    (mark,) = tenant.rows(job_items)
    assert mark["item"] == "warn:5:2026-02-06T00:00:00Z"


@pytest.mark.parametrize(
    ("own", "told"),
    [
        pytest.param({}, ["own@example.org"], id="active"),
        pytest.param({"status": "disabled"}, ["a@example.org", "b@example.org"], id="disabled"),
        pytest.param({"email": "nobody"}, ["a@example.org", "b@example.org"], id="no address"),
    ],
)
def test_the_administrator_of_the_exchange_is_told_or_those_of_the_tenant(
    tenant: TenantDatabase, own: dict[str, Any], told
) -> None:
    tenant.add(users, user(**{"id": 1, "email": "own@example.org", **own}))
    tenant.add(users, *(admin(email=f"{name}@example.org") for name in "ab"))
    tenant.add(exchanges, completed(days=25) | {"admin_id": 1, "name": "Office 🎁"})

    assert tenant.run(JOB)["warned"] == 1

    messages = tenant.rows(outbox)
    assert [message["recipient"] for message in messages] == told
    assert messages[0]["subject"] == "Office 🎁 will be deleted on 2026-03-06"


def test_the_day_of_the_end_is_the_tenants(tenant: TenantDatabase) -> None:
    tenant.add(users, admin(id=1))
    tenant.add(exchanges, completed(days=25) | {"name": "Office"})

    tenant.run(JOB, zone="America/New_York")

    (message,) = tenant.rows(outbox)
    assert message["subject"] == "Office will be deleted on 2026-03-05"


def test_where_nobody_can_be_told_it_is_tried_again(tenant: TenantDatabase) -> None:
    tenant.add(exchanges, completed(days=25))
    before = tenant.content()
    assert tenant.run(JOB) == NOTHING
    assert tenant.content() == before

    tenant.add(users, admin())
    assert tenant.run(JOB, slot=S + timedelta(days=1))["warned"] == 1


def test_one_without_a_date_is_an_error_and_the_others_are_done(tenant: TenantDatabase) -> None:
    tenant.add(exchanges, exchange(id=1, completed_at=None), completed(days=31))

    assert tenant.run(JOB) == NOTHING | {"purged": 1, "errors": 1}

    (error,) = tenant.rows(job_items)
    assert (error["item"], error["state"]) == ("1", "error")


def test_an_error_is_forgotten_when_the_date_is_there(tenant: TenantDatabase) -> None:
    tenant.add(exchanges, exchange(id=1, completed_at=None))
    tenant.run(JOB)
    with tenant.engine.begin() as connection:
        connection.execute(update(exchanges).values(completed_at=S))

    assert tenant.run(JOB) == NOTHING
    assert tenant.rows(job_items) == []


@pytest.mark.parametrize("state", ["draft", "open", "matched"])
def test_only_completed_exchanges_are_deleted(tenant: TenantDatabase, state) -> None:
    tenant.add(exchanges, completed(days=99) | {"state": state}, exchange(state=state))

    assert tenant.run(JOB) == NOTHING


def test_how_long_an_exchange_is_kept_can_be_set(tenant: TenantDatabase) -> None:
    tenant.add(users, admin(id=1))
    tenant.add(exchanges, *(completed(days=days) for days in (3, 2, 1)))

    assert tenant.run(JOB, keep_days=3, warn_days=1) == NOTHING | {"purged": 1, "warned": 1}
    assert tenant.run(JOB, keep_days=3, warn_days=0) == NOTHING


@pytest.mark.parametrize(("hold", "left"), [("true", 1), ("false", 0)])
def test_a_tenant_under_legal_hold_keeps_everything(tenant: TenantDatabase, hold, left) -> None:
    tenant.add(exchanges, completed(days=31))
    outcome = ""
    with tenant.context(JOB) as ctx:
        ctx.tenant = replace(ctx.tenant, labels={"legal_hold": hold})
        try:
            JOBS[JOB].call(ctx)
        except Skip as skip:
            outcome = skip.reason

    assert len(tenant.rows(exchanges)) == left
    assert outcome == ("legal hold" if left else "")


def test_more_exchanges_than_one_batch_holds_are_all_deleted(tenant: TenantDatabase) -> None:
    tenant.add(exchanges, *(completed(days=31) for _ in range(501)))

    assert tenant.run(JOB) == NOTHING | {"purged": 501}
