"""cleanup.sessions"""

from collections.abc import Sequence
from datetime import datetime

from jobs.schema import user_sessions, users
from tests.jobs.rows import user, user_session
from tests.jobs.tenant import S, TenantDatabase, ago

JOB = "cleanup.sessions"


def add_sessions(tenant: TenantDatabase, ends: Sequence[datetime]) -> None:
    tenant.add(users, user())
    (owner,) = tenant.rows(users)
    tenant.add(user_sessions, *(user_session(owner["id"], end) for end in ends))


def ends(tenant: TenantDatabase) -> list[datetime]:
    return [row["expires_at"] for row in tenant.rows(user_sessions)]


def test_sessions_that_have_ended_are_deleted(tenant: TenantDatabase) -> None:
    add_sessions(tenant, [ago(days=9), ago(seconds=1), ago(days=-1)])

    assert tenant.run(JOB) == {"deleted": 2, "errors": 0}
    assert ends(tenant) == [ago(days=-1)]


def test_a_session_that_ends_at_the_slot_goes_and_one_that_ends_a_second_later_stays(
    tenant: TenantDatabase,
) -> None:
    add_sessions(tenant, [S, ago(seconds=-1)])

    assert tenant.run(JOB) == {"deleted": 1, "errors": 0}
    assert ends(tenant) == [ago(seconds=-1)]


def test_more_than_a_batch_are_all_deleted(tenant: TenantDatabase) -> None:
    add_sessions(tenant, [ago(days=1)] * 1001)

    assert tenant.run(JOB) == {"deleted": 1001, "errors": 0}
    assert ends(tenant) == []


def test_a_second_run_of_the_slot_deletes_nothing(tenant: TenantDatabase) -> None:
    add_sessions(tenant, [S, ago(days=-1)])
    tenant.run(JOB)
    before = tenant.content()

    assert tenant.run(JOB) == {"deleted": 0, "errors": 0}
    assert tenant.content() == before
