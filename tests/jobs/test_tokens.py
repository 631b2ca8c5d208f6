"""cleanup.tokens"""

from jobs.schema import auth_tokens
from tests.jobs.rows import token
from tests.jobs.tenant import S, TenantDatabase, ago

JOB = "cleanup.tokens"


def test_tokens_that_have_expired_or_were_used_a_day_ago_are_deleted(
    tenant: TenantDatabase,
) -> None:
    tenant.add(
        auth_tokens,
        token(expires_at=ago(days=1)),
        token(expires_at=ago(hours=1)),
        token(used_at=ago(hours=25)),
        token(token_hash="fresh"),
    )

    assert tenant.run(JOB) == {"expired": 2, "used": 1, "errors": 0}
    assert [row["token_hash"] for row in tenant.rows(auth_tokens)] == ["fresh"]


def test_a_token_that_ends_at_the_slot_goes_and_one_that_ends_a_second_later_stays(
    tenant: TenantDatabase,
) -> None:
    tenant.add(auth_tokens, token(expires_at=S), token(expires_at=ago(seconds=-1)))

    assert tenant.run(JOB) == {"expired": 1, "used": 0, "errors": 0}
    assert [row["expires_at"] for row in tenant.rows(auth_tokens)] == [ago(seconds=-1)]


def test_a_token_that_was_used_a_day_ago_goes_and_one_that_was_used_later_stays(
    tenant: TenantDatabase,
) -> None:
    kept = [ago(hours=23, minutes=59), ago(hours=24, seconds=-1)]
    tenant.add(auth_tokens, *(token(used_at=at) for at in [ago(hours=24), *kept]))

    assert tenant.run(JOB) == {"expired": 0, "used": 1, "errors": 0}
    assert [row["used_at"] for row in tenant.rows(auth_tokens)] == kept


def test_a_token_that_is_both_counts_as_expired(tenant: TenantDatabase) -> None:
    tenant.add(auth_tokens, token(expires_at=S, used_at=ago(days=2)))

    assert tenant.run(JOB) == {"expired": 1, "used": 0, "errors": 0}


def test_more_than_a_batch_are_all_deleted(tenant: TenantDatabase) -> None:
    tenant.add(auth_tokens, *(token(expires_at=ago(days=1)) for _ in range(501)))
    tenant.add(auth_tokens, *(token(used_at=ago(days=1)) for _ in range(501)))

    assert tenant.run(JOB) == {"expired": 501, "used": 501, "errors": 0}
    assert tenant.rows(auth_tokens) == []


def test_a_second_run_of_the_slot_deletes_nothing(tenant: TenantDatabase) -> None:
    tenant.add(auth_tokens, token(expires_at=S), token(used_at=ago(days=1)), token())
    tenant.run(JOB)
    before = tenant.content()

    assert tenant.run(JOB) == {"expired": 0, "used": 0, "errors": 0}
    assert tenant.content() == before


def test_an_empty_table_is_fine(tenant: TenantDatabase) -> None:
    assert tenant.run(JOB) == {"expired": 0, "used": 0, "errors": 0}
