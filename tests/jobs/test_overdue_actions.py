"""compliance.overdue_actions"""

from datetime import UTC, date, datetime

import pytest
from sqlalchemy import event, text, update
from sqlalchemy.exc import DBAPIError

from jobs.schema import notifications, users, work_items
from tests.jobs.rows import action, case, user
from tests.jobs.tenant import S, TenantDatabase, ago

JOB = "compliance.overdue_actions"
NOTHING = {"flagged": 0, "notified": 0, "no_owner": 0, "errors": 0}


def test_an_action_due_yesterday_is_flagged(tenant: TenantDatabase) -> None:
    tenant.add(work_items, action(due_date=date(2026, 2, 28), status="created", is_overdue=None))

    assert tenant.run(JOB) == NOTHING | {"flagged": 1}

    (row,) = tenant.rows(work_items)
    assert row["is_overdue"] is True
    assert row["overdue_since"] == date(2026, 3, 1)
    assert row["updated_at"] == S


def test_an_action_in_progress_whose_flag_is_false_is_flagged(tenant: TenantDatabase) -> None:
    tenant.add(work_items, action(status="in_progress", is_overdue=False))

    assert tenant.run(JOB)["flagged"] == 1


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(action(due_date=date(2026, 3, 1)), id="due today"),
        pytest.param(action(due_date=None), id="never due"),
        pytest.param(action(status="completed"), id="completed"),
        pytest.param(action(status="cancelled"), id="cancelled"),
        pytest.param(action(is_overdue=True), id="flagged before"),
        pytest.param(case(), id="a case"),
        pytest.param(case(status="in_progress"), id="a case with the status of an action"),
    ],
)
def test_what_is_not_late_is_left_alone(tenant: TenantDatabase, row) -> None:
    tenant.add(work_items, row)
    before = tenant.content()

    assert tenant.run(JOB) == NOTHING
    assert tenant.content() == before


@pytest.mark.parametrize(
    ("zone", "basis", "flagged"),
    [
        ("America/New_York", "tenant", 0),  # there it is still the 28th
        ("America/New_York", "utc", 1),
        ("Pacific/Kiritimati", "tenant", 1),
        ("UTC", "tenant", 1),
    ],
)
def test_the_date_is_the_tenants_unless_it_shall_be_that_of_utc(
    tenant: TenantDatabase, zone, basis, flagged
) -> None:
    tenant.add(work_items, action(due_date=date(2026, 2, 28)))

    assert tenant.run(JOB, zone=zone, date_basis=basis)["flagged"] == flagged


def test_east_of_utc_an_action_is_late_before_the_day_ends_in_utc(tenant: TenantDatabase) -> None:
    tenant.add(work_items, action(due_date=date(2026, 2, 28)))
    ten_in_the_morning = datetime(2026, 2, 28, 10, tzinfo=UTC)  # midnight in Kiritimati

    just_before = ten_in_the_morning.replace(hour=9, minute=59, second=59)
    assert tenant.run(JOB, slot=just_before, zone="Pacific/Kiritimati")["flagged"] == 0
    assert tenant.run(JOB, slot=ten_in_the_morning, zone="Pacific/Kiritimati")["flagged"] == 1


def test_a_second_run_of_the_slot_writes_nothing(tenant: TenantDatabase) -> None:
    tenant.add(users, user(id=1))
    tenant.add(work_items, action(owner_id=1), action(owner_id=None))
    assert tenant.run(JOB, notify=True) == NOTHING | {"flagged": 2, "notified": 1, "no_owner": 1}
    before = tenant.content()

    assert tenant.run(JOB, notify=True) == NOTHING
    assert tenant.content() == before


def test_nobody_is_told_unless_asked_for(tenant: TenantDatabase) -> None:
    tenant.add(users, user(id=1))
    tenant.add(work_items, action(owner_id=1))

    assert tenant.run(JOB) == NOTHING | {"flagged": 1}
    assert tenant.rows(notifications) == []


def test_only_active_owners_are_told(tenant: TenantDatabase) -> None:
    tenant.add(users, user(id=1), user(id=2, status="disabled"), user(id=3, status="invited"))
    tenant.add(work_items, *(action(owner_id=owner) for owner in (1, 2, 3, None)))
    tenant.add(work_items, action(owner_id=1, status="completed"))

    assert tenant.run(JOB, notify=True) == NOTHING | {"flagged": 4, "notified": 1, "no_owner": 3}

    (notice,) = tenant.rows(notifications)
    assert (notice["user_id"], notice["kind"], notice["state"]) == (1, "overdue", "new")
    assert notice["created_at"] == S
    assert "李 🎁" in notice["title"]
    assert "2026-02-28" in notice["body"]


def test_a_title_of_full_length_fits_into_the_notice(tenant: TenantDatabase) -> None:
    tenant.add(users, user(id=1))
    tenant.add(work_items, action(owner_id=1, title="🎁" * 300))

    assert tenant.run(JOB, notify=True)["notified"] == 1

    (notice,) = tenant.rows(notifications)
    assert len(notice["title"]) == 300
    assert notice["title"].endswith("🎁…")


def test_more_actions_than_one_batch_holds_are_all_flagged(tenant: TenantDatabase) -> None:
    tenant.add(users, user(id=1))
    tenant.add(work_items, *(action(owner_id=1) for _ in range(1001)), action(due_date=None))

    assert tenant.run(JOB, notify=True) == NOTHING | {"flagged": 1001, "notified": 1001}
    assert [row["is_overdue"] for row in tenant.rows(work_items)] == [True] * 1001 + [None]


def test_an_action_that_is_completed_meanwhile_is_neither_flagged_nor_told(
    tenant: TenantDatabase,
) -> None:
    tenant.add(users, user(id=1))
    tenant.add(work_items, action(id=1, owner_id=1), action(id=2, owner_id=1, title="Done"))

    def complete(connection, _cursor, statement, *_rest) -> None:
        # Just before the job's own UPDATE, after it has chosen its rows.
        if statement.startswith("UPDATE work_items SET is_overdue"):
            done = update(work_items).where(work_items.c.id == 2).values(status="completed")
            connection.execute(done)

    event.listen(tenant.engine, "before_cursor_execute", complete)
    try:
        counters = tenant.run(JOB, notify=True)
    finally:
        event.remove(tenant.engine, "before_cursor_execute", complete)

    assert counters == NOTHING | {"flagged": 1, "notified": 1}
    assert [row["is_overdue"] for row in tenant.rows(work_items)] == [True, None]
    assert len(tenant.rows(notifications)) == 1


def test_an_action_flagged_on_another_day_keeps_its_date(tenant: TenantDatabase) -> None:
    tenant.add(work_items, action(is_overdue=True, overdue_since=date(2026, 2, 1)))

    tenant.run(JOB)

    (row,) = tenant.rows(work_items)
    assert row["overdue_since"] == date(2026, 2, 1)
    assert row["updated_at"] == ago(days=20)


def test_without_its_table_the_error_of_the_database_is_raised(tenant: TenantDatabase) -> None:
    with tenant.engine.begin() as connection:
        connection.execute(text("DROP TABLE work_items"))

    with pytest.raises(DBAPIError, match="work_items"):
        tenant.run(JOB)
