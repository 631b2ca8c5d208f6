"""retention.apply_policies"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Table

from cronrunner import Skip
from cronrunner.app.checks import find_errors
from cronrunner.config import load
from cronrunner.registry.finding import Found
from jobs.schema import (
    archived_records,
    audit_log,
    job_items,
    notifications,
    outbox,
    reports,
    users,
)
from tests.jobs import rows
from tests.jobs.tenant import JOBS, S, TenantDatabase, ago

JOB = "retention.apply_policies"
NOTHING = {"archived": 0, "deleted": 0, "already": 0, "batches": 0, "errors": 0}


def counted(**counters: int) -> dict[str, int]:
    return NOTHING | counters


def ids(tenant: TenantDatabase, table: Table) -> list[int]:
    return [row["id"] for row in tenant.rows(table)]


def notice(at: datetime, **values: Any) -> dict[str, Any]:
    return {**rows.notice(at), "state": "queued", **values}


def message(at: datetime, **values: Any) -> dict[str, Any]:
    return rows.message(**{"created_at": at, "status": "sent", **values})


def archived(at: datetime, **values: Any) -> dict[str, Any]:
    return rows.archived(at, **values)


def mark(at: datetime, **values: Any) -> dict[str, Any]:
    return rows.job_item(**{"slot": at, "state": "done", **values})


@pytest.fixture
def owned(tenant: TenantDatabase) -> TenantDatabase:
    """Give a tenant whose user 1 is there to have notifications."""
    tenant.add(users, {"id": 1, **rows.user()})
    return tenant


@pytest.mark.parametrize(
    ("table", "make", "days"),
    [
        (notifications, notice, 180),
        (outbox, message, 90),
        (archived_records, archived, 2555),
        (job_items, mark, 400),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_what_is_older_than_the_policy_is_deleted_and_what_is_as_old_stays(
    owned: TenantDatabase, table: Table, make: Callable[[datetime], dict[str, Any]], days: int
) -> None:
    owned.add(table, make(ago(days=days, seconds=1)), make(ago(days=days)), make(ago(days=1)))
    _, *kept = ids(owned, table)

    assert owned.run(JOB) == counted(deleted=1, batches=1)
    assert ids(owned, table) == kept


def test_reports_go_into_the_archive(tenant: TenantDatabase) -> None:
    tenant.add(reports, rows.report(ago(days=730, seconds=1)), rows.report(ago(days=730)))
    old, kept = tenant.rows(reports)

    assert tenant.run(JOB) == counted(archived=1, batches=1)
    assert tenant.rows(reports) == [kept]
    (copy,) = tenant.rows(archived_records)
    assert copy["data"] == {
        **old,
        "slot": old["slot"].isoformat(),
        "created_at": old["created_at"].isoformat(),
    }
    assert (copy["record_at"], copy["archived_at"]) == (old["created_at"], S)


@pytest.mark.parametrize(
    ("table", "row"),
    [
        (notifications, notice(ago(days=900), state="new")),
        (outbox, message(ago(days=900), status="pending")),
        (outbox, message(ago(days=900), status="sending")),
        (job_items, mark(ago(days=900), state="error")),
        (audit_log, rows.event(ago(days=9000))),
    ],
    ids=["new notice", "pending message", "sending message", "failing item", "audit log"],
)
def test_what_is_not_finished_stays_however_old_it_is(
    owned: TenantDatabase, table: Table, row: Mapping[str, Any]
) -> None:
    owned.add(table, row)

    assert owned.run(JOB) == NOTHING
    assert len(owned.rows(table)) == 1


@pytest.mark.parametrize("state", ["queued", "suppressed", "expired"])
def test_notices_of_every_other_state_go(owned: TenantDatabase, state: str) -> None:
    owned.add(notifications, notice(ago(days=181), state=state))

    assert owned.run(JOB) == counted(deleted=1, batches=1)


@pytest.mark.parametrize("status", ["sent", "dead", "cancelled"])
def test_messages_that_are_over_go(tenant: TenantDatabase, status: str) -> None:
    tenant.add(outbox, message(ago(days=91), status=status))

    assert tenant.run(JOB) == counted(deleted=1, batches=1)


def test_a_policy_may_be_another_one(tenant: TenantDatabase) -> None:
    tenant.add(outbox, message(ago(days=9)), message(ago(days=11)))
    tenant.add(audit_log, rows.event(ago(days=2)))
    tenant.add(reports, rows.report(ago(days=9000)))

    found = tenant.run(JOB, outbox="archive after 10d", audit_log="delete after 1d", reports="keep")
    assert found == counted(archived=1, deleted=1, batches=2)
    assert len(tenant.rows(reports)) == 1


def test_more_than_a_batch_of_a_table_are_all_deleted(tenant: TenantDatabase) -> None:
    tenant.add(outbox, *(message(ago(days=91)) for _ in range(1001)))

    assert tenant.run(JOB) == counted(deleted=1001, batches=3)


def test_a_second_run_of_the_slot_changes_nothing(owned: TenantDatabase) -> None:
    owned.add(notifications, notice(ago(days=181)), notice(ago(days=1)))
    owned.add(reports, rows.report(ago(days=800)), rows.report(ago(days=1)))
    owned.run(JOB)
    before = owned.content()

    assert owned.run(JOB) == NOTHING
    assert owned.content() == before


def test_a_tenant_under_legal_hold_is_skipped(tenant: TenantDatabase) -> None:
    tenant.add(outbox, message(ago(days=91)))
    with pytest.raises(Skip, match=r"^legal hold$"), tenant.context(JOB) as ctx:
        ctx.tenant = replace(ctx.tenant, labels={"legal_hold": "true"})
        JOBS[JOB].call(ctx)

    assert len(tenant.rows(outbox)) == 1


def test_a_label_that_says_otherwise_holds_nothing(tenant: TenantDatabase) -> None:
    tenant.add(outbox, message(ago(days=91)))
    with tenant.context(JOB) as ctx:
        ctx.tenant = replace(ctx.tenant, labels={"legal_hold": "false"})
        found = JOBS[JOB].call(ctx)

    assert found == counted(deleted=1, batches=1)


@pytest.mark.parametrize(
    "policy", ["", "180d", "delete", "delete after 0d", "delete after 1h", "shred after 1d", "Keep"]
)
def test_what_is_no_policy_is_refused(policy: str) -> None:
    with pytest.raises(ValueError) as refused:
        JOBS[JOB].options["outbox"].read(policy)

    assert str(refused.value).endswith(f"got {policy!r}")


def test_the_archive_is_not_archived() -> None:
    with pytest.raises(ValueError, match="expected keep, or such as `delete after 2555d`"):
        JOBS[JOB].options["archived_records"].read("archive after 9d")


def test_wrong_policies_are_mistakes_of_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "tenants.yaml"
    path.write_text(
        """
servers: {files: {url: "sqlite://", discover: {directory: tenants}}}
jobs:
  retention.apply_policies:
    options:
      outbox: delete after 30d
      users: delete after 30d
tenants:
  agency_acorn:
    jobs:
      retention.apply_policies:
        options:
          reports: archive after 0d
""",
        encoding="utf-8",
    )
    found = find_errors(load(path, {}), Found(jobs=JOBS, problems=()))

    policy, table = sorted(str(each) for each in found)
    assert "tenants.yaml:13: job retention.apply_policies: option reports: expected keep" in policy
    assert "tenants.yaml:7: job retention.apply_policies has no option 'users'" in table
