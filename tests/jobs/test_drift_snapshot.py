"""compliance.drift_snapshot"""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cronrunner.testing import assert_idempotent
from jobs.drift import OF_WINDOWS, STATUSES, assess, compare, count
from jobs.schema import (
    compliance_snapshots,
    control_evidence,
    framework_controls,
    job_items,
    outbox,
)
from tests.jobs.rows import control, evidence, snapshot
from tests.jobs.tenant import S, TenantDatabase, ago

JOB = "compliance.drift_snapshot"
COUNTED = (
    "controls", "baseline", "regressions", "critical", "high", "medium", "improvements", "added",
    "removed", "alerts", "errors",
)  # fmt: skip
NOTHING = dict.fromkeys((*COUNTED, *OF_WINDOWS), 0)
TODAY = date(2026, 3, 1)
SECOND = timedelta(seconds=1)


def run(tenant: TenantDatabase, **given) -> dict[str, int]:
    """Run the job and return what it counts of this slot."""
    return {name: n for name, n in tenant.run(JOB, **given).items() if name in COUNTED}


def counted(**values: int) -> dict[str, int]:
    return dict.fromkeys(COUNTED, 0) | values


def kept(tenant: TenantDatabase) -> dict:
    return tenant.rows(compliance_snapshots)[-1]


def test_a_control_that_was_compliant_and_fails_is_a_critical_regression(
    tenant: TenantDatabase,
) -> None:
    tenant.add(framework_controls, control(id=1))
    tenant.add(control_evidence, evidence(1, "fail"))
    tenant.add(compliance_snapshots, snapshot({"1": "compliant"}))

    assert run(tenant) == counted(controls=1, regressions=1, critical=1)

    row = kept(tenant)
    assert (row["slot"], row["statuses"]) == (S, {"1": "non_compliant"})
    assert row["changes"] == [
        {
            "control_id": 1, "old": "compliant", "new": "non_compliant",
            "kind": "regression", "severity": "critical",
        }
    ]  # fmt: skip
    assert row["counts"] == {"compliant": 0, "warning": 0, "non_compliant": 1, "not_assessed": 0}
    assert tenant.log == [
        {"event": "compliance.critical", "log_level": "error", "control_id": 1, "was": "compliant"}
    ]


@pytest.mark.parametrize(
    ("old", "new", "kind", "severity"),
    [
        ("compliant", "warning", "regression", "high"),
        ("compliant", "non_compliant", "regression", "critical"),
        ("compliant", "not_assessed", "regression", "medium"),
        ("warning", "compliant", "improvement", None),
        ("warning", "non_compliant", "regression", "critical"),
        ("warning", "not_assessed", "regression", "medium"),
        ("non_compliant", "compliant", "improvement", None),
        ("non_compliant", "warning", "improvement", None),
        ("non_compliant", "not_assessed", "regression", "medium"),
        ("not_assessed", "compliant", "improvement", None),
        ("not_assessed", "warning", "regression", "high"),
        ("not_assessed", "non_compliant", "regression", "critical"),
        (None, "non_compliant", "added", None),
        ("compliant", None, "removed", None),
    ],
)
def test_what_a_change_means(old, new, kind, severity) -> None:
    before, after = ({} if status is None else {"7": status} for status in (old, new))

    (change,) = compare(before, after)

    assert (change["kind"], change["severity"]) == (kind, severity)


@given(*[st.dictionaries(st.integers(1, 20).map(str), st.sampled_from(STATUSES)) for _ in range(2)])
def test_every_difference_is_one_change_and_nothing_else_is(old, new) -> None:
    changes = compare(old, new)

    assert [each["control_id"] for each in changes] == sorted(
        int(key) for key in old.keys() | new.keys() if old.get(key) != new.get(key)
    )
    counters = count(changes)
    assert counters["regressions"] == counters["critical"] + counters["high"] + counters["medium"]
    assert len(changes) == sum(
        counters[kind] for kind in ("regressions", "improvements", "added", "removed")
    )


@pytest.mark.parametrize(
    ("valid_until", "status"),
    [
        (None, "compliant"),
        (TODAY, "compliant"),
        (TODAY - timedelta(days=1), "warning"),
    ],
)
def test_a_pass_is_good_to_the_end_of_its_last_day(
    tenant: TenantDatabase, valid_until, status
) -> None:
    tenant.add(framework_controls, control(id=1))
    tenant.add(control_evidence, evidence(1, valid_until=valid_until))
    tenant.add(compliance_snapshots, snapshot({"1": "compliant"}))

    high = int(status == "warning")
    assert run(tenant) == counted(controls=1, regressions=high, high=high)
    assert kept(tenant)["statuses"] == {"1": status}


def test_the_last_day_is_the_tenants(tenant: TenantDatabase) -> None:
    tenant.add(framework_controls, control(id=1))
    tenant.add(control_evidence, evidence(1, valid_until=date(2026, 2, 28)))

    run(tenant, zone="America/New_York")  # there it is still the 28th

    assert kept(tenant)["statuses"] == {"1": "compliant"}


@pytest.mark.parametrize("result", ["fail", "warning"])
def test_only_a_pass_grows_old(result) -> None:
    fresh = assess(result, TODAY, TODAY)
    assert assess(result, TODAY - timedelta(days=1), TODAY) == fresh != "compliant"


@pytest.mark.parametrize(
    ("rows", "status"),
    [
        ([], "not_assessed"),
        ([evidence(1, "fail", collected_at=S), evidence(1, "pass")], "non_compliant"),
        ([evidence(1, "pass"), evidence(1, "fail", collected_at=S + SECOND)], "compliant"),
        ([evidence(1, "fail", collected_at=S + SECOND)], "not_assessed"),
        ([evidence(1, "pass", id=2), evidence(1, "warning", id=3)], "warning"),
        ([evidence(1, "warning", id=3), evidence(1, "pass", id=4)], "compliant"),
    ],
    ids=["none", "newest", "after the slot", "only after the slot", "tie", "tie, passed"],
)
def test_the_newest_evidence_by_the_slot_counts(tenant: TenantDatabase, rows, status) -> None:
    tenant.add(framework_controls, control(id=1))
    tenant.add(control_evidence, *rows)

    run(tenant)

    assert kept(tenant)["statuses"] == {"1": status}


def test_the_first_snapshot_is_what_others_are_compared_with(tenant: TenantDatabase) -> None:
    tenant.add(framework_controls, control(id=1), control(id=2))
    tenant.add(control_evidence, evidence(1, "fail"))

    assert run(tenant) == counted(controls=2, baseline=1)
    assert kept(tenant)["changes"] == []


def test_a_tenant_without_controls_has_an_empty_snapshot(tenant: TenantDatabase) -> None:
    assert run(tenant) == counted(baseline=1)
    assert run(tenant, slot=S + timedelta(days=7)) == counted()
    assert [row["statuses"] for row in tenant.rows(compliance_snapshots)] == [{}, {}]


def test_controls_come_and_go(tenant: TenantDatabase) -> None:
    tenant.add(framework_controls, control(id=1, retired=True), control(id=2))
    tenant.add(control_evidence, evidence(1, "fail"), evidence(2, "fail"))
    tenant.add(compliance_snapshots, snapshot({"1": "compliant", "3": "compliant"}))

    assert run(tenant) == counted(controls=1, added=1, removed=2)
    assert {each["kind"]: each["severity"] for each in kept(tenant)["changes"]} == {
        "added": None,
        "removed": None,
    }


def test_it_is_compared_with_the_latest_snapshot_before_the_slot(tenant: TenantDatabase) -> None:
    tenant.add(framework_controls, control(id=1))
    tenant.add(control_evidence, evidence(1, "fail"))
    tenant.add(
        compliance_snapshots,
        snapshot({"1": "compliant"}, slot=ago(days=14)),
        snapshot({"1": "warning"}, slot=ago(days=7)),
        snapshot({"1": "compliant"}, slot=S + timedelta(days=7)),
    )

    run(tenant)

    (row,) = [row for row in tenant.rows(compliance_snapshots) if row["slot"] == S]
    assert row["changes"][0]["old"] == "warning"


def test_a_result_that_is_not_known_is_an_error_of_its_item_and_changes_nothing(
    tenant: TenantDatabase,
) -> None:
    tenant.add(framework_controls, *(control(id=number) for number in (1, 2, 3)))
    tenant.add(control_evidence, evidence(1, "perhaps"), evidence(2, "perhaps"), evidence(3))
    tenant.add(compliance_snapshots, snapshot({"1": "warning", "3": "compliant"}))

    assert run(tenant) == counted(controls=3, added=1, errors=2)
    assert kept(tenant)["statuses"] == {"1": "warning", "2": "not_assessed", "3": "compliant"}
    assert [(row["item"], row["state"]) for row in tenant.rows(job_items)] == [
        ("1", "error"),
        ("2", "error"),
    ]
    assert "perhaps" not in str(tenant.log)

    tenant.add(control_evidence, *(evidence(number, collected_at=S) for number in (1, 2)))
    assert run(tenant, slot=S + timedelta(days=7)) == counted(controls=3, improvements=2)
    assert tenant.rows(job_items) == []


def test_a_second_run_of_the_slot_leaves_its_snapshot_alone(tenant: TenantDatabase) -> None:
    tenant.add(framework_controls, control(id=1), control(id=2))
    tenant.add(control_evidence, evidence(1, "fail"), evidence(2, "perhaps"))
    tenant.add(compliance_snapshots, snapshot({"1": "compliant"}))

    assert assert_idempotent(tenant, JOB, alert_email=["ciso@example.org"]) == NOTHING
    assert len(tenant.rows(compliance_snapshots)) == 2
    assert len(tenant.rows(outbox)) == 1


ALERTS = {"alert_email": ["a@example.org", "b@example.org", "a@example.org"],
          "slack_webhook": "https://hooks.example.org/T1"}  # fmt: skip


def test_each_recipient_gets_one_message_that_lists_the_critical_ones(
    tenant: TenantDatabase,
) -> None:
    tenant.add(
        framework_controls,
        control(id=1, control_code="A.5", title="Zoë 李 🎁"),
        control(id=2, control_code="A.9"),
        control(id=3, control_code="A.1"),
    )
    tenant.add(control_evidence, evidence(1, "fail"), evidence(2, "fail"), evidence(3, "warning"))
    tenant.add(compliance_snapshots, snapshot({"1": "compliant", "2": "warning", "3": "compliant"}))

    assert run(tenant, **ALERTS)["alerts"] == 3

    messages = tenant.rows(outbox)
    assert [(row["channel"], row["recipient"]) for row in messages] == [
        ("email", "a@example.org"),
        ("email", "b@example.org"),
        ("slack", "https://hooks.example.org/T1"),
    ]
    (body,) = {row["body"] for row in messages}
    first, second = body.splitlines()
    assert "A.5 Zoë 李 🎁" in first
    assert "compliant" in first
    assert "A.9" in second
    assert "2 controls" in messages[0]["subject"]


def test_nobody_is_told_of_less_than_critical(tenant: TenantDatabase) -> None:
    tenant.add(framework_controls, control(id=1))
    tenant.add(control_evidence, evidence(1, "warning"))
    tenant.add(compliance_snapshots, snapshot({"1": "compliant"}))

    assert run(tenant, **ALERTS) == counted(controls=1, regressions=1, high=1)
    assert tenant.rows(outbox) == []


def test_an_address_that_is_none_is_an_error_and_the_others_are_told(
    tenant: TenantDatabase,
) -> None:
    tenant.add(framework_controls, control(id=1))
    tenant.add(control_evidence, evidence(1, "fail"))
    tenant.add(compliance_snapshots, snapshot({"1": "compliant"}))

    found = run(tenant, alert_email=["nobody", "b@example.org"])

    assert (found["alerts"], found["errors"]) == (1, 1)
    assert [row["recipient"] for row in tenant.rows(outbox)] == ["b@example.org"]


def change(kind: str, severity: str | None = None) -> dict:
    return {"control_id": 1, "old": "x", "new": "y", "kind": kind, "severity": severity}


def test_changes_are_added_up_over_windows_that_end_with_the_slot(tenant: TenantDatabase) -> None:
    worse, better = change("regression", "high"), change("improvement")
    tenant.add(framework_controls, control(id=1))
    tenant.add(
        compliance_snapshots,
        snapshot({"1": "compliant"}, slot=ago(days=90), changes=[worse] * 7),
        snapshot({"1": "compliant"}, slot=ago(days=30), changes=[worse, better]),
        snapshot({"1": "compliant"}, slot=ago(days=7), changes=[better]),
        snapshot({"1": "compliant"}, slot=S + timedelta(days=1), changes=[worse]),
    )

    found = tenant.run(JOB)  # not_assessed now: one regression of this slot

    assert {name: found[name] for name in OF_WINDOWS} == {
        "regressions_7d": 1,
        "improvements_7d": 0,
        "regressions_30d": 1,
        "improvements_30d": 1,
        "regressions_90d": 2,
        "improvements_90d": 2,
    }


def test_the_fleet_is_added_up_and_failed_tenants_are_left_out(tenant: TenantDatabase) -> None:
    totals = tenant.summarize(
        JOB,
        {"tenant": "a", "counters": NOTHING | {"regressions_7d": 2, "regressions_90d": 5}},
        {"tenant": "b", "counters": NOTHING | {"regressions_7d": 1, "improvements_30d": 4}},
        {"tenant": "c", "outcome": "failed"},
    )

    assert totals == dict.fromkeys(OF_WINDOWS, 0) | {
        "tenants": 2, "regressions_7d": 3, "regressions_90d": 5, "improvements_30d": 4,
    }  # fmt: skip
    assert [(line["days"], line["regressions"], line["improvements"]) for line in tenant.log] == [
        (7, 3, 0),
        (30, 0, 4),
        (90, 5, 0),
    ]
