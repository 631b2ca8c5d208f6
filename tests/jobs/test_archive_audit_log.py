"""retention.archive_audit_log"""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat
from typing import Any

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import DBAPIError

from cronrunner import Retry, Skip
from cronrunner.errors import DeadlineError
from jobs.schema import archived_records, audit_log, users
from tests.jobs import rows
from tests.jobs.tenant import JOBS, NOW, S, TenantDatabase, ago

JOB = "retention.archive_audit_log"
NOTHING = {"archived": 0, "deleted": 0, "already": 0, "batches": 0, "errors": 0}


def counted(**counters: int) -> dict[str, int]:
    return NOTHING | counters


def stopping_after(looks: int) -> Callable[[], datetime]:
    """Return a clock on which the timeout is over once somebody has looked so often."""
    moments = chain(repeat(NOW, looks), repeat(NOW + timedelta(hours=1)))
    return lambda: next(moments)


def test_an_old_entry_goes_into_the_archive(tenant: TenantDatabase) -> None:
    tenant.add(audit_log, rows.event(datetime(2025, 2, 28, tzinfo=UTC)), rows.event(ago(days=2)))

    assert tenant.run(JOB) == counted(archived=1, batches=1)
    assert [row["created_at"] for row in tenant.rows(audit_log)] == [ago(days=2)]
    assert len(tenant.rows(archived_records)) == 1


def test_the_copy_is_the_whole_row_with_its_dates_in_iso_8601(tenant: TenantDatabase) -> None:
    tenant.add(users, rows.user())
    (actor,) = tenant.rows(users)
    details = {"name": "Zoë 李 🎁", "nested": [1, None, True]}
    tenant.add(
        audit_log, {**rows.event(ago(days=400)), "actor_id": actor["id"], "details": details}
    )
    (entry,) = tenant.rows(audit_log)
    tenant.run(JOB)
    (copy,) = tenant.rows(archived_records)

    assert copy["data"] == {
        "id": entry["id"],
        "actor_id": actor["id"],
        "action": "login",
        "entity": "user:1",
        "details": details,
        "created_at": "2025-01-25T00:00:00+00:00",
    }
    assert (copy["source_table"], copy["source_id"]) == ("audit_log", entry["id"])
    assert (copy["record_at"], copy["archived_at"]) == (ago(days=400), S)


def test_an_entry_that_is_exactly_as_old_as_it_may_be_stays(tenant: TenantDatabase) -> None:
    tenant.add(audit_log, rows.event(ago(days=365)), rows.event(ago(days=365, seconds=1)))

    assert tenant.run(JOB) == counted(archived=1, batches=1)
    assert [row["created_at"] for row in tenant.rows(audit_log)] == [ago(days=365)]


def test_how_long_entries_stay_is_an_option(tenant: TenantDatabase) -> None:
    tenant.add(audit_log, rows.event(ago(days=1)), rows.event(ago(days=2)))

    assert tenant.run(JOB, keep_days=1) == counted(archived=1, batches=1)


def test_an_entry_whose_copy_is_there_already_is_deleted(tenant: TenantDatabase) -> None:
    tenant.add(audit_log, rows.event(ago(days=400)), rows.event(ago(days=401)))
    first, _ = tenant.rows(audit_log)
    tenant.add(archived_records, rows.archived(ago(days=31), source_id=first["id"]))
    tenant.add(
        archived_records,
        rows.archived(ago(days=31), source_table="reports", source_id=first["id"]),
    )

    assert tenant.run(JOB) == counted(archived=1, already=1, batches=1)
    assert tenant.rows(audit_log) == []
    assert len(tenant.rows(archived_records)) == 3


def test_1200_entries_are_three_batches(tenant: TenantDatabase) -> None:
    tenant.add(audit_log, *(rows.event(ago(days=400)) for _ in range(1200)))

    assert tenant.run(JOB) == counted(archived=1200, batches=3)
    assert tenant.rows(audit_log) == []
    assert len({row["source_id"] for row in tenant.rows(archived_records)}) == 1200


def test_a_job_that_was_ended_after_a_batch_archives_the_rest_when_it_is_repeated(
    tenant: TenantDatabase,
) -> None:
    tenant.add(audit_log, *(rows.event(ago(days=400)) for _ in range(1200)))
    # To set the deadline, to save the checkpoint; then it looks whether time is left.
    with pytest.raises(DeadlineError):
        tenant.run(JOB, clock=stopping_after(2))
    assert len(tenant.rows(audit_log)) == 700
    assert len(tenant.rows(archived_records)) == 500

    assert tenant.run(JOB) == counted(archived=700, batches=2)
    assert tenant.rows(audit_log) == []
    assert len(tenant.rows(archived_records)) == 1200


def test_a_second_run_of_the_slot_archives_nothing(tenant: TenantDatabase) -> None:
    tenant.add(audit_log, rows.event(ago(days=400)), rows.event(ago(days=2)))
    tenant.run(JOB)
    before = tenant.content()

    assert tenant.run(JOB) == NOTHING
    assert tenant.content() == before


def test_a_tenant_under_legal_hold_is_skipped(tenant: TenantDatabase) -> None:
    tenant.add(audit_log, rows.event(ago(days=400)))
    with pytest.raises(Skip, match=r"^legal hold$"), tenant.context(JOB) as ctx:
        ctx.tenant = replace(ctx.tenant, labels={"legal_hold": "true"})
        JOBS[JOB].call(ctx)

    assert len(tenant.rows(audit_log)) == 1


def test_without_its_table_the_error_of_the_database_is_raised(tenant: TenantDatabase) -> None:
    with tenant.engine.begin() as connection:
        connection.execute(text("DROP TABLE audit_log"))

    with pytest.raises(DBAPIError, match="audit_log"):
        tenant.run(JOB)


def delete_behind(engine: Engine) -> None:
    """Have an entry gone between its copy and its deletion, as if somebody else had deleted it."""
    done: list[bool] = []

    def delete_first(connection: Any, _: Any, statement: str, *__: Any) -> None:
        if statement.startswith("DELETE FROM audit_log") and not done:
            done.append(True)
            connection.exec_driver_sql("DELETE FROM audit_log WHERE action = 'logout'")

    event.listen(engine, "before_cursor_execute", delete_first)


def test_no_copy_is_kept_of_an_entry_that_could_not_be_deleted(tenant: TenantDatabase) -> None:
    tenant.add(audit_log, rows.event(ago(days=400)), rows.event(ago(days=400), "logout"))
    delete_behind(tenant.engine)

    with pytest.raises(Retry, match="rows were changed"):
        tenant.run(JOB)
    assert tenant.rows(archived_records) == []
    assert len(tenant.rows(audit_log)) == 2
