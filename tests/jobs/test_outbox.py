"""Queueing messages."""

from datetime import timedelta

import pytest
from sqlalchemy import Dialect, Table
from sqlalchemy.dialects import mysql, sqlite

from cronrunner import JobContext, fleet_outbox, job
from jobs.outbox import enqueue, is_address
from jobs.schema import outbox
from tests.jobs.tenant import S, TenantDatabase

JOB = "operations.health_check"


def test_a_message_is_queued_once_for_each_key(tenant: TenantDatabase) -> None:
    with tenant.context(JOB) as ctx:
        assert enqueue(ctx, "a:1", "email", "a@example.org", "Hello", "…") is True
        assert enqueue(ctx, "a:1", "email", "b@example.org", "Hello again", "…") is False
    with tenant.context(JOB, slot=S + timedelta(hours=1)) as ctx:
        assert enqueue(ctx, "a:1", "email", "c@example.org", "Hello once more", "…") is False

    (row,) = tenant.rows(outbox)
    assert (row["recipient"], row["status"], row["attempts"]) == ("a@example.org", "pending", 0)
    assert row["not_before"] == row["created_at"] == S
    assert row["source_job"] == JOB
    assert row["payload"] is None


def test_a_message_of_a_job_that_failed_is_not_queued(tenant: TenantDatabase) -> None:
    with pytest.raises(RuntimeError), tenant.context(JOB) as ctx:
        enqueue(ctx, "a:1", "email", "a@example.org", "Hello", "…")
        raise RuntimeError

    assert tenant.rows(outbox) == []


def test_a_message_can_wait_and_carry_a_payload(tenant: TenantDatabase) -> None:
    tomorrow = S + timedelta(days=1)
    with tenant.context(JOB) as ctx:
        enqueue(
            ctx, "h:1", "webhook", "https://example.org/hook", "", "",
            payload={"name": "李 🎁"}, not_before=tomorrow,
        )  # fmt: skip

    (row,) = tenant.rows(outbox)
    assert row["payload"] == {"name": "李 🎁"}
    assert row["not_before"] == tomorrow
    assert row["created_at"] == S


def test_what_is_too_long_is_cut_and_says_so(tenant: TenantDatabase) -> None:
    with tenant.context(JOB) as ctx:
        enqueue(ctx, "a:1", "email", "a@example.org", "🎁" * 501, "x" * 1_000_001)
        enqueue(ctx, "a:2", "email", "a@example.org", "🎁" * 500, "a\0b")

    cut, whole = tenant.rows(outbox)
    assert cut["subject"] == "🎁" * 499 + "…"
    assert cut["body"] == "x" * 999_999 + "…"
    assert (whole["subject"], whole["body"]) == ("🎁" * 500, "ab")


@pytest.mark.parametrize(
    "address",
    ["", "@", "a@", "@b", "a@b@c", "a b@c", "a@b\n", "plain", f"{'a' * 250}@b.de"],
)
def test_an_email_needs_an_address(tenant: TenantDatabase, address) -> None:
    assert not is_address(address)
    with tenant.context(JOB) as ctx, pytest.raises(ValueError, match="e-mail address"):
        enqueue(ctx, "a:1", "email", address, "Hello", "…")

    assert tenant.rows(outbox) == []


def test_an_address_may_have_254_characters_and_any_script() -> None:
    assert is_address(f"{'a' * 249}@b.de")
    assert is_address("zoë@例え.jp")


@pytest.mark.parametrize("dialect", [sqlite.dialect(), mysql.dialect()], ids=["sqlite", "mysql"])
def test_the_outbox_of_the_fleet_is_that_of_a_tenant(dialect: Dialect) -> None:
    def columns(table: Table) -> list[tuple[str, str, bool | None]]:
        return [(each.name, each.type.compile(dialect), each.nullable) for each in table.columns]

    def keys(table: Table) -> set[tuple[str, ...]]:
        indexed = [*table.indexes, *table.constraints]
        return {tuple(each.columns.keys()) for each in indexed if hasattr(each, "columns")}

    assert columns(fleet_outbox) == columns(outbox)
    assert keys(fleet_outbox) == keys(outbox)


def test_what_is_queued_for_the_fleet_waits_for_the_success_of_the_work(
    tenant: TenantDatabase,
) -> None:
    def tell(ctx: JobContext) -> dict[str, int]:
        told = [
            enqueue(ctx, "u:1", "email", "ops@example.org", "Hello", "…", payload={"n": number})
            for number in range(2)
        ]
        return {"told": sum(told)}

    def fail(ctx: JobContext) -> None:
        enqueue(ctx, "u:2", "email", "ops@example.org", "Hello", "…")
        raise ValueError("planted")

    for_the_fleet = job(scope="fleet")
    assert tenant.run(for_the_fleet(tell)) == {"told": 1}
    assert tenant.run(for_the_fleet(tell)) == {"told": 0}
    with pytest.raises(ValueError, match="planted"):
        tenant.run(for_the_fleet(fail))

    (row,) = tenant.fleet.messages()
    assert (row["dedupe_key"], row["payload"], row["status"]) == ("u:1", {"n": 0}, "pending")
    assert tenant.rows(outbox) == []
