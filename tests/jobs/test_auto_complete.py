"""exchanges.auto_complete"""

from datetime import timedelta

import pytest
from sqlalchemy import event

from jobs.schema import exchanges
from tests.jobs.rows import exchange
from tests.jobs.tenant import S, TenantDatabase, ago

JOB = "exchanges.auto_complete"


def test_an_exchange_of_yesterday_is_completed(tenant: TenantDatabase) -> None:
    tenant.add(exchanges, exchange(state="matched", exchange_at=ago(hours=6)))

    assert tenant.run(JOB) == {"completed": 1, "errors": 0}

    (row,) = tenant.rows(exchanges)
    assert (row["state"], row["completed_at"]) == ("completed", S)


@pytest.mark.parametrize(("seconds", "completed"), [(0, 1), (-1, 0), (1, 1)])
def test_an_exchange_is_over_when_its_time_has_come(
    tenant: TenantDatabase, seconds, completed
) -> None:
    tenant.add(exchanges, exchange(state="matched", exchange_at=ago(seconds=seconds)))

    assert tenant.run(JOB)["completed"] == completed


@pytest.mark.parametrize("state", ["draft", "open", "completed"])
def test_only_matched_exchanges_are_completed(tenant: TenantDatabase, state) -> None:
    tenant.add(exchanges, exchange(state=state, exchange_at=ago(days=30)))
    before = tenant.content()

    assert tenant.run(JOB) == {"completed": 0, "errors": 0}
    assert tenant.content() == before


def test_a_second_run_of_the_slot_writes_nothing(tenant: TenantDatabase) -> None:
    tenant.add(exchanges, *(exchange(state="matched") for _ in range(3)))
    assert tenant.run(JOB)["completed"] == 3
    before = tenant.content()

    assert tenant.run(JOB)["completed"] == 0
    assert tenant.content() == before
    assert tenant.run(JOB, slot=S + timedelta(days=1))["completed"] == 0
    assert tenant.content() == before


def test_an_exchange_that_is_reopened_meanwhile_is_left_open(tenant: TenantDatabase) -> None:
    tenant.add(exchanges, exchange(id=1, state="matched"), exchange(id=2, state="matched"))

    def reopen(connection, _cursor, statement, *_rest) -> None:
        # Just before the job's own UPDATE, after it has chosen its exchanges.
        if statement.startswith("UPDATE exchanges SET state"):
            reopened = "UPDATE exchanges SET name = 'Again', state = 'open' WHERE id = 2"
            connection.exec_driver_sql(reopened)

    event.listen(tenant.engine, "before_cursor_execute", reopen)
    try:
        counters = tenant.run(JOB)
    finally:
        event.remove(tenant.engine, "before_cursor_execute", reopen)

    assert counters == {"completed": 1, "errors": 0}
    assert [row["state"] for row in tenant.rows(exchanges)] == ["completed", "open"]


def test_more_exchanges_than_one_batch_holds_are_all_completed(tenant: TenantDatabase) -> None:
    tenant.add(exchanges, *(exchange(state="matched") for _ in range(501)))

    assert tenant.run(JOB)["completed"] == 501
