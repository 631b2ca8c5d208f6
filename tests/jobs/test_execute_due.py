"""uar.execute_due"""

import json
import tracemalloc
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from cronrunner.testing import assert_idempotent
from jobs import datasets
from jobs.schema import job_items, uar_comparisons, uar_executions, uar_findings, uar_rows
from tests.jobs.rows import access, comparison
from tests.jobs.tenant import S, TenantDatabase, ago

JOB = "uar.execute_due"
NOTHING = {"due": 0, "executed": 0, "failed": 0, "findings": 0, "errors": 0}
DONE = NOTHING | {"due": 1, "executed": 1}
FAILED = NOTHING | {"due": 1, "failed": 1}
HOUR = timedelta(hours=1)


def fill(tenant: TenantDatabase, left: dict[str, dict], right: dict[str, dict], **review) -> None:
    """Add a comparison with its two datasets."""
    tenant.add(uar_comparisons, comparison(**review))
    tenant.add(uar_rows, *(access("directory", key, attrs) for key, attrs in left.items()))
    tenant.add(uar_rows, *(access("payroll", key, attrs) for key, attrs in right.items()))


def findings(tenant: TenantDatabase) -> list[tuple]:
    names = ("kind", "row_key", "field", "left_value", "right_value")
    return [tuple(row[name] for name in names) for row in tenant.rows(uar_findings)]


def test_what_differs_is_found(tenant: TenantDatabase) -> None:
    fill(tenant, {"a": {"role": "x"}, "b": {}}, {"a": {"role": "y"}})

    assert tenant.run(JOB) == DONE | {"findings": 2}

    assert findings(tenant) == [
        ("changed", "a", "role", '"x"', '"y"'),
        ("missing_right", "b", None, "{}", None),
    ]
    (execution,) = tenant.rows(uar_executions)
    assert (execution["period_key"], execution["slot"]) == ("2026-03-01", S)
    assert (execution["status"], execution["attempts"], execution["error"]) == ("done", 1, None)
    assert (execution["rows_left"], execution["rows_right"], execution["findings"]) == (2, 1, 2)
    (log,) = tenant.log
    assert (log["event"], log["left"], log["right"], log["findings"]) == ("uar.reviewed", 2, 1, 2)


def test_equal_datasets_have_no_findings(tenant: TenantDatabase) -> None:
    same: dict[str, dict] = {"a": {"role": "x", "level": 1}, "李 🎁": {"tags": ["p", "q"]}}
    fill(tenant, same, same)

    assert tenant.run(JOB) == DONE


@pytest.mark.parametrize(
    ("slot", "due"),
    [
        (datetime(2026, 3, 1, 0, tzinfo=UTC), 0),
        (datetime(2026, 3, 1, 0, 59, 59, tzinfo=UTC), 0),
        (datetime(2026, 3, 1, 1, tzinfo=UTC), 1),
        (datetime(2026, 3, 1, 23, tzinfo=UTC), 1),
        (datetime(2026, 3, 2, 0, tzinfo=UTC), 0),
    ],
)
def test_a_weekly_review_is_due_from_its_hour_to_the_end_of_its_week(
    tenant: TenantDatabase, slot, due
) -> None:
    fill(tenant, {"a": {}}, {"a": {}}, frequency="weekly", run_day=7, run_hour=1)

    assert tenant.run(JOB, slot=slot)["due"] == due


@pytest.mark.parametrize(
    ("zone", "slot", "due"),
    [
        ("America/New_York", datetime(2026, 3, 1, 5, tzinfo=UTC), 1),
        ("America/New_York", datetime(2026, 3, 1, 4, 59, tzinfo=UTC), 1),  # the day before
        ("Pacific/Kiritimati", datetime(2026, 2, 28, 10, tzinfo=UTC), 1),
    ],
)
def test_days_are_the_tenants(tenant: TenantDatabase, zone, slot, due) -> None:
    fill(tenant, {"a": {}}, {"a": {}})

    assert tenant.run(JOB, slot=slot, zone=zone)["due"] == due
    (execution,) = tenant.rows(uar_executions)
    local = (slot - 5 * HOUR) if zone == "America/New_York" else slot + 14 * HOUR
    assert execution["period_key"] == f"{local:%Y-%m-%d}"


def test_a_monthly_review_without_a_day_is_due_on_the_first(tenant: TenantDatabase) -> None:
    fill(tenant, {"a": {}}, {"a": {}}, frequency="monthly", run_day=None, run_hour=2)

    assert tenant.run(JOB, slot=S + HOUR) == NOTHING
    assert tenant.run(JOB, slot=S + timedelta(days=9)) == DONE
    assert tenant.run(JOB, slot=S + timedelta(days=10)) == NOTHING
    assert [row["period_key"] for row in tenant.rows(uar_executions)] == ["2026-03"]


def test_each_period_has_a_review_of_its_own(tenant: TenantDatabase) -> None:
    fill(tenant, {"a": {}}, {"b": {}})

    assert tenant.run(JOB) == DONE | {"findings": 2}
    assert tenant.run(JOB, slot=S + HOUR) == NOTHING
    assert tenant.run(JOB, slot=S + 24 * HOUR) == DONE | {"findings": 2}
    assert len(tenant.rows(uar_findings)) == 4


def test_what_is_not_enabled_is_not_reviewed(tenant: TenantDatabase) -> None:
    fill(tenant, {"a": {}}, {}, enabled=False)

    assert tenant.run(JOB) == NOTHING


@pytest.mark.parametrize("right", [{"a": {"role": "y"}}, {}], ids=["done", "failed"])
def test_a_second_run_of_the_slot_changes_nothing(tenant: TenantDatabase, right) -> None:
    fill(tenant, {"a": {"role": "x"}, "b": {}}, right)

    assert assert_idempotent(tenant, JOB) == NOTHING
    assert len(tenant.rows(uar_executions)) == 1


def test_a_review_that_fails_is_tried_in_three_slots_and_no_more(tenant: TenantDatabase) -> None:
    fill(tenant, {"a": {}}, {})

    tried = [tenant.run(JOB, slot=S + hour * HOUR) for hour in range(5)]

    assert tried == [FAILED, FAILED, FAILED, NOTHING, NOTHING]
    (execution,) = tenant.rows(uar_executions)
    assert (execution["status"], execution["attempts"]) == ("failed", 3)
    assert (execution["rows_left"], execution["rows_right"], execution["findings"]) == (1, 0, 0)
    assert "found none" in execution["error"]
    assert tenant.rows(uar_findings) == []


def test_how_often_it_is_tried_is_an_option(tenant: TenantDatabase) -> None:
    fill(tenant, {"a": {}}, {})

    tried = [tenant.run(JOB, slot=S + hour * HOUR, max_attempts=1) for hour in range(2)]

    assert tried == [FAILED, NOTHING]


def test_a_review_that_failed_may_be_done_in_a_later_slot(tenant: TenantDatabase) -> None:
    fill(tenant, {"a": {}}, {})
    tenant.run(JOB)
    tenant.add(uar_rows, access("payroll", "b"))

    assert tenant.run(JOB, slot=S + HOUR) == DONE | {"findings": 2}

    (execution,) = tenant.rows(uar_executions)
    assert (execution["status"], execution["attempts"], execution["error"]) == ("done", 2, None)
    assert (execution["slot"], execution["findings"]) == (S + HOUR, 2)
    assert {row["execution_id"] for row in tenant.rows(uar_findings)} == {execution["id"]}


def test_a_slot_that_came_before_the_last_attempt_does_not_try_again(
    tenant: TenantDatabase,
) -> None:
    fill(tenant, {"a": {}}, {})
    tenant.run(JOB, slot=S + 2 * HOUR)

    assert tenant.run(JOB, slot=S + HOUR) == NOTHING


@pytest.mark.parametrize(("left", "right"), [({}, {"a": {}}), ({"a": {}}, {}), ({}, {})])
def test_an_empty_dataset_fails_the_review_unless_it_may_be_empty(
    tenant: TenantDatabase, left, right
) -> None:
    fill(tenant, left, right)

    assert tenant.run(JOB) == FAILED
    found = len(left) + len(right)
    assert tenant.run(JOB, slot=S + HOUR, allow_empty=True) == DONE | {"findings": found}


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_dataset_of_too_many_rows_fails_the_review(tenant: TenantDatabase, side) -> None:
    three: dict[str, dict] = {"a": {}, "b": {}, "c": {}}
    two: dict[str, dict] = {"a": {}, "b": {}}
    fill(tenant, *((three, two) if side == "left" else (two, three)))

    assert tenant.run(JOB, max_rows=2) == FAILED
    assert tenant.rows(uar_findings) == []
    assert "at most 2 rows" in tenant.rows(uar_executions)[0]["error"]
    assert tenant.run(JOB, slot=S + HOUR, max_rows=3) == DONE | {"findings": 1}


def test_a_review_that_fails_keeps_no_other_from_being_done(tenant: TenantDatabase) -> None:
    fill(tenant, {"a": {}}, {"a": {}}, id=2)
    tenant.add(uar_comparisons, comparison(id=1, left_dataset="nobody"))

    assert tenant.run(JOB) == NOTHING | {"due": 2, "executed": 1, "failed": 1}


@pytest.mark.parametrize(
    "broken",
    [
        {"frequency": "fortnightly"},
        {"run_hour": 24},
        {"frequency": "weekly", "run_day": 8},
        {"frequency": "monthly", "run_day": 0},
        {"ignore_fields": "role"},
        {"ignore_fields": {"role": True}},
    ],
    ids=str,
)
def test_a_comparison_that_cannot_be_read_is_an_error_of_its_item(
    tenant: TenantDatabase, broken
) -> None:
    tenant.add(uar_comparisons, comparison(id=1, **broken))
    fill(tenant, {"a": {}}, {"a": {}}, id=2)

    assert tenant.run(JOB) == DONE | {"errors": 1}
    assert [row["item"] for row in tenant.rows(job_items)] == ["comparison:1"]

    with tenant.engine.begin() as connection:
        sound = comparison(enabled=True)
        connection.execute(update(uar_comparisons).where(uar_comparisons.c.id == 1).values(sound))
    assert tenant.run(JOB, slot=S + HOUR) == DONE
    assert tenant.rows(job_items) == []


def test_a_row_whose_attrs_are_no_object_is_left_out_until_it_is_mended(
    tenant: TenantDatabase,
) -> None:
    fill(tenant, {"a": {}}, {"a": {}})
    fill(tenant, {}, {}, frequency="weekly")  # the same datasets: a row is one error
    tenant.add(uar_rows, *(access("payroll", "odd", ["no"], id=90 + place) for place in (0, 1)))

    assert tenant.run(JOB) == NOTHING | {"due": 2, "executed": 2, "errors": 2}
    assert [row["item"] for row in tenant.rows(job_items)] == ["row:90", "row:91"]
    assert {row["rows_right"] for row in tenant.rows(uar_executions)} == {1}

    tomorrow = S + 24 * HOUR
    with tenant.engine.begin() as connection:
        connection.execute(update(uar_rows).where(uar_rows.c.id == 90).values(attrs={"role": "x"}))
    found = tenant.run(JOB, slot=tomorrow)
    assert (found["findings"], found["errors"]) == (2, 1)
    assert [(row["item"], row["attempts"]) for row in tenant.rows(job_items)] == [("row:91", 2)]


def test_a_dataset_of_broken_rows_alone_is_an_empty_one(tenant: TenantDatabase) -> None:
    fill(tenant, {"a": {}}, {})
    tenant.add(uar_rows, access("payroll", "odd", ["no"]))

    assert tenant.run(JOB) == FAILED | {"errors": 1}
    assert len(tenant.rows(job_items)) == 1
    assert tenant.rows(uar_findings) == []


def test_rows_are_matched_as_unicode_composes_their_keys_and_by_case(
    tenant: TenantDatabase,
) -> None:
    fill(tenant, {"Zoe\u0308": {}, "ann": {}}, {"Zoë": {}, "Ann": {}})

    assert tenant.run(JOB)["findings"] == 2
    assert [finding[:2] for finding in findings(tenant)] == [
        ("missing_left", "Ann"),
        ("missing_right", "ann"),
    ]


def test_of_rows_with_one_key_the_lowest_id_counts(tenant: TenantDatabase) -> None:
    tenant.add(uar_comparisons, comparison())
    tenant.add(
        uar_rows,
        access("payroll", "a", {"role": "late"}, id=3),
        access("payroll", "a", {"role": "x"}, id=2),
        access("directory", "a", {"role": "x"}, id=1),
        access("payroll", "a", {}, id=4),
    )

    assert tenant.run(JOB) == DONE | {"findings": 2}
    assert findings(tenant) == [
        ("duplicate", "a", None, None, '{"role": "late"}'),
        ("duplicate", "a", None, None, "{}"),
    ]
    assert tenant.rows(uar_executions)[0]["rows_right"] == 3


def test_fields_that_are_ignored_are_not_compared(tenant: TenantDatabase) -> None:
    fill(
        tenant,
        {"a": {"role": "x", "seen": 1}},
        {"a": {"role": "x", "seen": 2}},
        ignore_fields=["seen"],
    )

    assert tenant.run(JOB) == DONE


def test_datasets_whose_names_differ_in_case_are_two(tenant: TenantDatabase) -> None:
    fill(tenant, {"a": {}}, {"a": {}})
    tenant.add(uar_rows, access("Payroll", "b"), access("PAYROLL", "c"))

    assert tenant.run(JOB) == DONE


def test_what_is_too_wide_for_a_finding_is_cut(tenant: TenantDatabase) -> None:
    composed = "\u0958" * 191  # Unicode never composes it: as NFC it is twice as long
    fill(tenant, {"a": {"f" * 300: "🎁" * 70_000}}, {"a": {}, composed: {}})

    assert tenant.run(JOB) == DONE | {"findings": 2}

    changed, missing = tenant.rows(uar_findings)
    assert changed["field"] == "f" * 99 + "…"
    assert json.loads(changed["left_value"]) == "🎁" * 70_000
    assert len(missing["row_key"]) == 191


@pytest.mark.parametrize("tenant", ["sqlite"], indirect=True)
def test_of_many_rows_one_side_is_held_as_text(tenant: TenantDatabase) -> None:
    attrs, rows = {"role": "reader", "team": "access", "note": "x" * 1_000}, 4_000
    tenant.add(uar_comparisons, comparison())
    tenant.add(uar_rows, *(access("directory", f"user{n}", attrs) for n in range(rows)))
    tenant.add(uar_rows, *(access("payroll", f"user{n}", attrs) for n in range(rows + 1)))

    tracemalloc.start()
    counters = tenant.run(JOB)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert counters == DONE | {"findings": 1}
    assert peak < 2 * rows * len(json.dumps(attrs))


def test_a_long_review_tells_how_far_it_is(tenant: TenantDatabase, monkeypatch) -> None:
    monkeypatch.setattr(datasets, "_PROGRESS_ROWS", 2)
    fill(tenant, {str(number): {} for number in range(5)}, {"0": {}})

    tenant.run(JOB)

    read = [line["rows"] for line in tenant.log if line["event"] == "uar.reading"]
    assert read == [2, 4]


def test_executions_of_other_periods_are_left_alone(tenant: TenantDatabase) -> None:
    fill(tenant, {"a": {}}, {"a": {}}, id=1)
    earlier = {
        "comparison_id": 1, "period_key": "2026-02-28", "slot": ago(days=1), "status": "failed",
        "attempts": 3, "rows_left": 0, "rows_right": 0, "findings": 0, "error": "x",
    }  # fmt: skip
    tenant.add(uar_executions, earlier)

    assert tenant.run(JOB) == DONE
    assert {name: tenant.rows(uar_executions)[0][name] for name in earlier} == earlier
