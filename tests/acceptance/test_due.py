"""What is due, by slots that have passed: tenants, jobs and time zones of their own."""

import shutil
from pathlib import Path

import pytest

from tests.acceptance.fleet import Finished, Fleet
from tests.acceptance.small import began, go, small, until, written

_NIGHTLY = """
    @job(schedule="0 2 * * *")
    def work(ctx):
        ctx.execute("INSERT INTO done VALUES ('work', :slot)")
        return {"hour": ctx.slot.hour, "day": ctx.slot.day}
"""


def _due(fleet: Fleet, at: str, *options: str, code: int = 0) -> Finished:
    done = fleet.run("due", "--json", "--scheduled-at", at, *options)
    assert done.code == code, done.stderr
    return done


def _seen(fleet: Fleet) -> None:
    """Let the jobs and tenants be known before the slots of the test."""
    assert _due(fleet, "2026-03-01T00:00Z").document["executions"] == []


def test_a_slot_that_has_passed_is_done_once(tmp_path: Path) -> None:
    fleet = small(tmp_path, _NIGHTLY)
    _seen(fleet)

    early = _due(fleet, "2026-03-01T01:59Z")
    assert early.document["executions"] == []
    done = _due(fleet, "2026-03-01T02:05Z")
    assert done.document["outcomes"] == {"succeeded": 3}
    row = done.execution("jobs.work", "t0")
    assert row["slot"].startswith("2026-03-01T02:00:00")
    assert row["counters"] == {"hour": 2, "day": 1}

    again = _due(fleet, "2026-03-01T23:00Z")
    assert again.document["executions"] == []
    assert written(fleet) == {"t0": 1, "t1": 1, "t2": 1}
    # It is the same work, whoever does it.
    run = fleet.run("run", "--json", "--scheduled-at", "2026-03-01T02:00Z")
    assert run.document["duplicates"] == 3


def test_what_was_never_seen_has_no_slots_in_the_past(tmp_path: Path) -> None:
    fleet = small(tmp_path, _NIGHTLY)
    assert _due(fleet, "2026-03-01T12:00Z").document["executions"] == []
    assert _due(fleet, "2026-03-02T02:00Z").document["outcomes"] == {"succeeded": 3}
    assert "nothing was due\n" in fleet.run("due", "--scheduled-at", "2026-03-02T02:00Z").stdout


def test_a_tenant_that_is_new_has_no_slots_in_the_past(tmp_path: Path) -> None:
    fleet = small(tmp_path, _NIGHTLY)
    _seen(fleet)
    _due(fleet, "2026-03-01T02:00Z")
    shutil.copy(tmp_path / "tenants" / "t0.db", tmp_path / "tenants" / "t9.db")

    assert _due(fleet, "2026-03-01T12:00Z").document["executions"] == []
    assert _due(fleet, "2026-03-02T12:00Z").document["outcomes"] == {"succeeded": 4}


def test_a_trigger_of_the_future_does_at_once_what_is_due_by_then(tmp_path: Path) -> None:
    other = _NIGHTLY.replace("0 2 * * *", "0 1 * * *").replace("work", "other")
    fleet = small(tmp_path, _NIGHTLY + other)

    # One slot is the very moment, the other one is older and still to come.
    first = _due(fleet, "2126-03-01T02:00Z")
    assert first.document["outcomes"] == {"succeeded": 6}
    assert _due(fleet, "2126-03-01T02:00Z").document["executions"] == []


def test_a_trigger_that_was_overtaken_does_nothing(tmp_path: Path) -> None:
    fleet = small(tmp_path, _NIGHTLY.replace('schedule="0 2 * * *"', 'every="15m"'))
    _due(fleet, "2026-03-01T00:00Z")
    assert _due(fleet, "2026-03-01T09:00Z").log_lines("slots.missed")

    # What was counted as missed stays so.
    assert _due(fleet, "2026-03-01T05:00Z").document["executions"] == []
    assert written(fleet) == {"t0": 2, "t1": 2, "t2": 2}


def test_a_trigger_that_is_six_hours_late_does_its_slot(tmp_path: Path) -> None:
    fleet = small(tmp_path, _NIGHTLY)
    _seen(fleet)

    # The trigger says what it was for; the clock is months ahead.
    done = _due(fleet, "2026-03-02T08:00Z")
    assert done.execution("jobs.work", "t1")["slot"].startswith("2026-03-02T02:00:00")


def test_two_hundred_missed_slots_are_one_execution(tmp_path: Path) -> None:
    every_quarter = _NIGHTLY.replace('schedule="0 2 * * *"', 'every="15m"')
    fleet = small(tmp_path, every_quarter)
    _due(fleet, "2026-03-01T00:00Z")
    done = _due(fleet, "2026-03-03T02:15Z")

    # 50 hours and a quarter after the slot that was done.
    assert done.document["outcomes"] == {"succeeded": 3}
    assert done.execution("jobs.work", "t2")["slot"].startswith("2026-03-03T02:15:00")
    (line,) = done.log_lines("slots.missed")
    assert line["cronrunner"]["slots"] == 3 * 200
    assert written(fleet) == {"t0": 2, "t1": 2, "t2": 2}


def test_a_slot_that_is_too_late_is_missed_and_said_once(tmp_path: Path) -> None:
    fleet = small(tmp_path, _NIGHTLY.replace("schedule=", 'catch_up="1h", schedule='))
    _seen(fleet)

    late = _due(fleet, "2026-03-01T03:01Z")
    assert {row["reason"] for row in late.document["executions"]} == {"missed"}
    assert late.document["outcomes"] == {"skipped": 3}
    assert _due(fleet, "2026-03-01T03:02Z").document["executions"] == []
    assert written(fleet) == {"t0": 0, "t1": 0, "t2": 0}
    assert _due(fleet, "2026-03-02T03:00Z").document["outcomes"] == {"succeeded": 3}


def test_each_tenant_has_the_slots_of_its_own_zone(tmp_path: Path) -> None:
    fleet = small(
        tmp_path,
        _NIGHTLY.replace("schedule=", 'timezone="tenant", schedule='),
        zones={"t0": "Europe/Berlin", "t1": "America/New_York"},
    )
    _seen(fleet)

    first = _due(fleet, "2026-03-01T01:00Z")
    assert set(first.outcomes) == {("jobs.work", "t0")}
    second = _due(fleet, "2026-03-01T02:00Z")
    assert set(second.outcomes) == {("jobs.work", "t2")}
    third = _due(fleet, "2026-03-01T07:00Z")
    assert set(third.outcomes) == {("jobs.work", "t1")}


def test_only_failed_repeats_the_slots_of_a_due_run(tmp_path: Path) -> None:
    failing = _NIGHTLY.replace(
        "        ctx.execute",
        "        if not open('ok').read():\n            raise ValueError('no')\n        ctx.execute",
    )
    fleet = small(tmp_path, failing)
    (tmp_path / "ok").write_text("")
    _seen(fleet)
    _due(fleet, "2026-03-01T02:30Z", code=1)

    (tmp_path / "ok").write_text("yes")
    repeated = fleet.run("run", "--json", "--only-failed", "last")
    assert repeated.code == 0, repeated.stderr
    assert {row["slot"][:19] for row in repeated.document["executions"]} == {"2026-03-01T02:00:00"}
    assert _due(fleet, "2026-03-01T03:00Z").document["executions"] == []


def test_prepare_and_summarize_belong_to_the_slot(tmp_path: Path) -> None:
    fleet = small(
        tmp_path,
        """
    def ready(ctx):
        return {"at": ctx.slot.isoformat()}

    def total(ctx):
        return {"tenants": sum(1 for _ in ctx.results())}

    @job(schedule="0 2 * * *", prepare=ready, summarize=total)
    def work(ctx):
        assert ctx.prepared == {"at": ctx.slot.isoformat()}
        ctx.execute("INSERT INTO done VALUES ('work', :slot)")
""",
    )
    _seen(fleet)
    done = _due(fleet, "2026-03-01T02:30Z")

    assert done.execution("jobs.work:summarize", "")["counters"] == {"tenants": 3}
    assert _due(fleet, "2026-03-01T02:40Z").document["executions"] == []
    assert _due(fleet, "2026-03-02T02:30Z").document["outcomes"] == {"succeeded": 5}


def test_fleet_scope_work_is_due_as_well(tmp_path: Path) -> None:
    fleet = small(
        tmp_path,
        """
    @job(schedule="0 2 * * *", scope="fleet")
    def work(ctx):
        return {"hour": ctx.slot.hour}
""",
    )
    _seen(fleet)
    assert _due(fleet, "2026-03-01T02:30Z").execution("jobs.work", "")["counters"] == {"hour": 2}
    assert _due(fleet, "2026-03-01T02:40Z").document["executions"] == []


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ('schedule="0 0 31 2 *"', "expected a cron expression that can fire"),
        ('schedule="0 2 * * *", every="1h"', "expected either a schedule or an interval"),
        ('every="5s"', "expected at least 1m"),
        ('timezone="Mars/Olympus"', "expected an IANA name"),
    ],
)
def test_what_can_never_be_due_is_refused(tmp_path: Path, declared: str, expected: str) -> None:
    fleet = small(tmp_path, _NIGHTLY.replace('schedule="0 2 * * *"', declared))
    assert expected in fleet.run("check").stdout + fleet.run("check").stderr


def test_slots_that_a_pause_leaves_open_are_missed_once(tmp_path: Path) -> None:
    fleet = small(tmp_path, _NIGHTLY.replace('schedule="0 2 * * *"', 'every="15m"'), tenants=1)
    _due(fleet, "2026-03-01T00:00Z")
    fleet.run("pause", "--tenant=t0", "--reason", "a test")
    for minute in (15, 30, 45):
        paused = _due(fleet, f"2026-03-01T00:{minute}Z")
        assert paused.log_lines("slots.missed") == []
    fleet.run("unpause", "--tenant=t0")

    (line,) = _due(fleet, "2026-03-01T01:00Z").log_lines("slots.missed")
    assert line["cronrunner"]["slots"] == 3
    label = "SELECT value FROM counters WHERE name = 'cronrunner_slots_missed_total'"
    assert fleet.query(label) == [(3,)]


def test_what_is_left_of_a_due_run_is_done_in_its_slots_whatever_the_schedule_is_by_then(
    tmp_path: Path,
) -> None:
    stubborn = """
        import time
        from pathlib import Path

        @job(schedule="0 * * * *")
        def work(ctx):
            if ctx.tenant.name > "t1" and not Path("go").exists():
                Path(f"began-{ctx.tenant.name}").touch()
                time.sleep(60)
            ctx.execute("INSERT INTO done VALUES ('work', :slot)")
    """
    fleet = small(tmp_path, stubborn, tenants=6)
    _due(fleet, "2026-03-01T01:30Z")
    with fleet.started("due", "--scheduled-at", "2026-03-01T03:30Z") as process:
        until(lambda: began(fleet) == {"t2", "t3"})
        # What has just ended is durable a moment later.
        until(lambda: fleet.query("SELECT count(*) FROM claims WHERE state = 'closed'") == [(2,)])
        process.kill()
        process.wait(10)
    go(fleet)
    fleet.write_job("jobs", stubborn.replace("0 * * * *", "15 * * * *"))
    rest = fleet.run("run", "--resume", "last", "--json")

    assert rest.document["outcomes"] == {"succeeded": 4}, rest.stderr
    assert {row["slot"] for row in rest.document["executions"]} == {"2026-03-01T03:00:00Z"}
    assert +written(fleet) == {f"t{n}": 1 for n in range(6)}
