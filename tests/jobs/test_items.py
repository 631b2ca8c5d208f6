"""Items of a job, each in a savepoint of its own."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import event, insert
from sqlalchemy.exc import OperationalError

from jobs.items import Items
from jobs.schema import job_items, rate_limits
from tests.jobs.rows import job_item, rate_limit
from tests.jobs.tenant import S, TenantDatabase

JOB = "operations.health_check"


def fail(tenant: TenantDatabase, error: Exception, *, slot: datetime = S) -> None:
    with tenant.context(JOB, slot=slot) as ctx, Items(ctx).attempt("1"):
        ctx.connection.execute(insert(rate_limits).values(rate_limit(S)))
        raise error


def test_what_a_broken_item_has_written_is_taken_back_and_the_rest_goes_on(
    tenant: TenantDatabase,
) -> None:
    with tenant.context(JOB) as ctx:
        items = Items(ctx)
        for key in ("1", "2"):
            with items.attempt(key):
                ctx.connection.execute(insert(rate_limits).values(rate_limit(S)))
                items.mark(key)
                items.mark(f"more:{key}")
                if key == "1":
                    raise ValueError("no such zone")
        assert items.errors == 1
        assert not items.is_done("1")
        assert not items.is_done("more:1")
        assert items.is_done("2")

    assert len(tenant.rows(rate_limits)) == 1
    error, *marks = tenant.rows(job_items)
    assert (error["item"], error["state"], error["slot"], error["attempts"]) == ("1", "error", S, 1)
    assert error["detail"] == "ValueError: no such zone"
    assert [mark["item"] for mark in marks] == ["2", "more:2"]


def test_an_item_that_fails_again_counts_its_slots(tenant: TenantDatabase) -> None:
    for hour in (0, 1, 1, 2):
        fail(tenant, LookupError("x" * 600), slot=S + timedelta(hours=hour))

    (row,) = tenant.rows(job_items)
    assert row["attempts"] == 3
    assert len(row["detail"]) == 500


def test_the_same_slot_again_writes_the_same_row(tenant: TenantDatabase) -> None:
    fail(tenant, TypeError("no"))
    before = tenant.content()

    fail(tenant, TypeError("no"))
    assert tenant.content() == before


def test_an_item_that_goes_well_after_all_leaves_no_error(tenant: TenantDatabase) -> None:
    fail(tenant, ValueError("no"))
    with tenant.context(JOB) as ctx, Items(ctx).attempt("1"):
        pass

    assert tenant.rows(job_items) == []


def test_a_mark_that_comes_after_an_error_takes_its_place(tenant: TenantDatabase) -> None:
    fail(tenant, ValueError("no"))
    with tenant.context(JOB) as ctx:
        items = Items(ctx)
        with items.attempt("1"):
            items.mark("1")

    (row,) = tenant.rows(job_items)
    assert (row["state"], row["attempts"], row["detail"]) == ("done", 1, None)


def test_an_error_after_a_mark_takes_its_place(tenant: TenantDatabase) -> None:
    with tenant.context(JOB) as ctx:
        Items(ctx).mark("1")
    fail(tenant, ValueError("no"), slot=S + timedelta(hours=1))

    (row,) = tenant.rows(job_items)
    assert (row["state"], row["slot"]) == ("error", S + timedelta(hours=1))


def test_a_mark_is_known_by_its_slot(tenant: TenantDatabase) -> None:
    with tenant.context(JOB) as ctx:
        Items(ctx).mark("1")
    for hours, at_slot in ((0, True), (-1, True), (1, False)):
        with tenant.context(JOB, slot=S + timedelta(hours=hours)) as ctx:
            items = Items(ctx)
            assert items.is_done("1")
            assert items.is_done_at_slot("1") is at_slot


def test_marks_of_other_jobs_are_not_ones_own(tenant: TenantDatabase) -> None:
    with tenant.context("compliance.overdue_actions") as ctx:
        Items(ctx).mark("1")
    with tenant.context(JOB) as ctx:
        assert not Items(ctx).is_done("1")


def test_an_error_of_the_database_that_is_no_fault_of_the_item_ends_the_job(
    tenant: TenantDatabase,
) -> None:
    with pytest.raises(OperationalError):
        fail(tenant, OperationalError("statement", {}, Exception("deadlock")))

    assert tenant.rows(job_items) == []
    assert tenant.rows(rate_limits) == []


def test_only_the_marks_that_are_asked_for_are_read(tenant: TenantDatabase) -> None:
    tenant.add(job_items, *(job_item(job=JOB, item=f"old:{n}", state="done") for n in range(5)))
    tenant.add(job_items, job_item(job=JOB, item="bad"))
    read: list[str] = []

    def count(_connection, _cursor, statement, *_rest) -> None:
        if "FROM job_items" in statement:
            read.append(statement)

    event.listen(tenant.engine, "before_cursor_execute", count)
    try:
        with tenant.context(JOB) as ctx:
            items = Items(ctx)
            assert [items.is_done(key) for key in ("old:3", "bad", "old:3", "none")] == [
                True, False, True, False,
            ]  # fmt: skip
    finally:
        event.remove(tenant.engine, "before_cursor_execute", count)

    # Those that failed at once, and one statement for each key that is not among them.
    assert len(read) == 3


def test_what_failed_and_did_not_come_up_again_is_forgotten(tenant: TenantDatabase) -> None:
    later = S + timedelta(hours=1)
    keys = ("1", "2", "3:4")
    tenant.add(job_items, *(job_item(job=JOB, item=key, slot=S) for key in keys))
    tenant.add(job_items, job_item(job=JOB, item="5", slot=S, state="done"))
    tenant.add(job_items, job_item(job="other", item="6", slot=S))
    with tenant.context(JOB) as ctx:
        Items(ctx).forget_absent()
    assert len(tenant.rows(job_items)) == 5

    with tenant.context(JOB, slot=later) as ctx:
        items = Items(ctx)
        with items.attempt("1"):
            int("still wrong")
        items.forget_absent(~job_items.c.item.contains(":"))
        assert items.errors == 1

    assert [row["item"] for row in tenant.rows(job_items)] == ["1", "3:4", "5", "6"]
