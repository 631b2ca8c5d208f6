"""cleanup.rate_limits"""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from jobs.schema import rate_limits
from tests.jobs.rows import rate_limit
from tests.jobs.tenant import S, TenantDatabase, ago

JOB = "cleanup.rate_limits"


def test_windows_that_have_ended_are_deleted(tenant: TenantDatabase) -> None:
    kept = ago(seconds=-1)
    tenant.add(rate_limits, *map(rate_limit, [ago(days=30), ago(seconds=1), S, kept]))

    assert tenant.run(JOB) == {"deleted": 3}
    assert [row["expires_at"] for row in tenant.rows(rate_limits)] == [kept]


def test_a_window_that_ends_at_the_slot_is_deleted(tenant: TenantDatabase) -> None:
    tenant.add(rate_limits, rate_limit(S))

    assert tenant.run(JOB) == {"deleted": 1}


def test_a_slot_between_two_seconds_decides_as_the_second_it_is_in(tenant: TenantDatabase) -> None:
    tenant.add(rate_limits, rate_limit(S), rate_limit(ago(seconds=-1)))

    assert tenant.run(JOB, slot=S.replace(microsecond=999_999)) == {"deleted": 1}


def test_a_second_run_of_the_slot_deletes_nothing(tenant: TenantDatabase) -> None:
    tenant.add(rate_limits, rate_limit(S), rate_limit(ago(seconds=-1)))
    tenant.run(JOB)
    before = tenant.content()

    assert tenant.run(JOB) == {"deleted": 0}
    assert tenant.content() == before


def test_without_its_table_the_error_of_the_database_is_raised(tenant: TenantDatabase) -> None:
    with tenant.engine.begin() as connection:
        connection.execute(text("DROP TABLE rate_limits"))

    with pytest.raises(DBAPIError, match="rate_limits"):
        tenant.run(JOB)
