"""alerts.credentials; what all alerts have in common is told of certificates"""

from datetime import date, timedelta

import pytest

from jobs.schema import expiring_assets, job_items, users
from tests.jobs.rows import admin, asset
from tests.jobs.tenant import TenantDatabase

JOB = "alerts.credentials"
TODAY = date(2026, 3, 1)


@pytest.mark.parametrize(
    ("days_left", "bucket"),
    [(31, None), (30, "30"), (14, "14"), (5, "7"), (3, "3"), (1, "1"), (0, "0"), (-1, "expired")],
)
def test_a_credential_is_alerted_until_the_day_of_its_end(
    tenant: TenantDatabase, days_left, bucket
) -> None:
    tenant.add(users, admin(id=1))
    ends = TODAY + timedelta(days=days_left)
    tenant.add(expiring_assets, asset("credential", id=1, expires_on=ends))

    assert tenant.run(JOB)["alerted"] == int(bucket is not None)
    assert [row["item"] for row in tenant.rows(job_items)] == (
        [f"1:{ends}:{bucket}"] if bucket else []
    )


def test_a_credential_that_has_ended_is_alerted_even_if_it_renews_itself(
    tenant: TenantDatabase,
) -> None:
    tenant.add(users, admin(id=1))
    ended = TODAY - timedelta(days=1)
    tenant.add(expiring_assets, asset("credential", expires_on=ended, auto_renew=True))

    counters = tenant.run(JOB)

    assert (counters["alerted"], counters["expired"]) == (1, 1)


def test_a_second_run_of_the_slot_writes_nothing(tenant: TenantDatabase) -> None:
    tenant.add(users, admin(id=1))
    tenant.add(expiring_assets, asset("credential", expires_on=TODAY))
    assert tenant.run(JOB)["alerted"] == 1
    before = tenant.content()

    assert tenant.run(JOB)["alerted"] == 0
    assert tenant.content() == before
