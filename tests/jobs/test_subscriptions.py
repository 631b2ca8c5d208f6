"""alerts.subscriptions; what all alerts have in common is told of certificates"""

from datetime import date

import pytest

from jobs.schema import expiring_assets, job_items, outbox, users
from tests.jobs.rows import admin, asset
from tests.jobs.tenant import TenantDatabase

JOB = "alerts.subscriptions"
NOTHING = {
    "checked": 0,
    "alerted": 0,
    "expired": 0,
    "no_recipient": 0,
    "too_old": 0,
    "errors": 0,
}


@pytest.mark.parametrize(
    ("ends", "bucket"),
    [
        (date(2026, 4, 1), None),
        (date(2026, 3, 31), "30"),
        (date(2026, 3, 15), "14"),
        (date(2026, 3, 4), "7"),
        (date(2026, 3, 2), "1"),
        (date(2026, 3, 1), "1"),
        (date(2026, 2, 28), "expired"),
    ],
)
def test_a_subscription_is_alerted_from_thirty_days_before_its_end(
    tenant: TenantDatabase, ends, bucket
) -> None:
    tenant.add(users, admin(id=1))
    tenant.add(expiring_assets, asset("subscription", id=1, expires_on=ends))

    counters = tenant.run(JOB)

    assert counters == NOTHING | {
        "checked": 1,
        "alerted": int(bucket is not None),
        "expired": int(bucket == "expired"),
    }
    assert [row["item"] for row in tenant.rows(job_items)] == (
        [f"1:{ends}:{bucket}"] if bucket else []
    )


def test_a_subscription_that_renews_itself_does_not_end(tenant: TenantDatabase) -> None:
    tenant.add(users, admin(id=1))
    ends = [date(2026, 3, 2), date(2026, 2, 28), date(2026, 1, 1)]
    tenant.add(
        expiring_assets,
        *(asset("subscription", auto_renew=True, expires_on=each) for each in ends),
    )

    assert tenant.run(JOB) == NOTHING | {"checked": 3, "alerted": 1, "too_old": 1}

    (message,) = tenant.rows(outbox)
    assert message["subject"] == "[low] Subscription Zoë 李 🎁 renews tomorrow"


def test_a_second_run_of_the_slot_writes_nothing(tenant: TenantDatabase) -> None:
    tenant.add(users, admin(id=1))
    tenant.add(expiring_assets, asset("subscription", expires_on=date(2026, 3, 31)))
    assert tenant.run(JOB)["alerted"] == 1
    before = tenant.content()

    assert tenant.run(JOB) == NOTHING | {"checked": 1}
    assert tenant.content() == before
