"""Once per slot and not per tenant: fleet-scope jobs, `prepare` and `summarize`."""

import signal
from pathlib import Path

import pytest

from tests.acceptance.fleet import finish
from tests.acceptance.small import SLOT, began, go, small, until

AT = ("run", "--json", "--scheduled-at", SLOT)

ONCE = """
    from pathlib import Path

    def note(text):
        with Path("notes").open("a") as notes:
            notes.write(text + "\\n")

    def before(ctx):
        note("prepare")
        if Path("fail-prepare").exists():
            raise ValueError("planted")
        return {"number": 7, "text": "é"}

    def after(ctx):
        rows = list(ctx.results())
        note(f"summarize {len(rows)} {ctx.prepared}")
        return {"tenants": len(rows)}

    @job(prepare=before, summarize=after)
    def each(ctx):
        if Path("fail-tenants").exists():
            raise ValueError("planted")
        return {"number": ctx.prepared["number"]}

    @job(scope="fleet")
    def once(ctx):
        note(f"fleet {ctx.tenant.name!r}")
"""


def notes(folder: Path) -> list[str]:
    path = folder / "notes"
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def test_what_is_once_per_slot_is_done_once_and_its_value_is_shared(tmp_path: Path) -> None:
    fleet = small(tmp_path, ONCE)
    first = fleet.run(*AT)

    assert first.code == 0, first.stderr
    assert first.document["outcomes"] == {"succeeded": 6}
    assert first.document["tenants"] == 3
    assert first.execution("jobs.each", "t1")["counters"] == {"number": 7}
    assert first.execution("jobs.each:summarize", "")["counters"] == {"tenants": 3}
    assert sorted(notes(tmp_path)) == [
        "fleet ''", "prepare", "summarize 3 {'number': 7, 'text': 'é'}",
    ]  # fmt: skip

    second = fleet.run(*AT)
    assert (second.code, second.document["executions"]) == (0, [])
    assert len(notes(tmp_path)) == 3


def test_a_prepare_that_fails_is_one_failure_and_its_tenants_are_skipped(tmp_path: Path) -> None:
    fleet = small(tmp_path, ONCE)
    (tmp_path / "fail-prepare").touch()
    finished = fleet.run(*AT)

    assert finished.code == 1
    assert finished.document["outcomes"] == {"succeeded": 1, "failed": 1, "skipped": 3}
    assert finished.execution("jobs.each:prepare", "")["error"] == "ValueError: planted"
    assert finished.execution("jobs.each", "t2")["reason"] == "prepare failed"
    # Nothing is summarised of what nobody has done.
    assert sorted(notes(tmp_path)) == ["fleet ''", "prepare"]

    (tmp_path / "fail-prepare").unlink()
    again = fleet.run(*AT, "--again")
    assert again.document["outcomes"] == {"succeeded": 6}


def test_a_prepare_that_fails_again_does_not_use_the_value_of_before(tmp_path: Path) -> None:
    fleet = small(tmp_path, ONCE)
    assert fleet.run(*AT).code == 0
    (tmp_path / "fail-prepare").touch()
    again = fleet.run(*AT, "--again")

    assert again.execution("jobs.each", "t0")["reason"] == "prepare failed"
    assert again.document["outcomes"] == {"succeeded": 1, "failed": 1, "skipped": 3}


def test_a_part_of_the_fleet_is_prepared_for_and_never_summarised(tmp_path: Path) -> None:
    fleet = small(tmp_path, ONCE)
    for chosen in ("--tenant=t*", "--exclude-tenant=t9", "--server=files"):
        finished = fleet.run("--json", chosen)
        assert set(finished.outcomes) == {("jobs.each:prepare", "")} | {
            ("jobs.each", f"t{n}") for n in range(3)
        }

    assert notes(tmp_path) == ["prepare"] * 3


def test_failures_of_tenants_close_them_and_are_summarised(tmp_path: Path) -> None:
    fleet = small(tmp_path, ONCE)
    (tmp_path / "fail-tenants").touch()
    finished = fleet.run(*AT)

    assert finished.code == 1
    assert finished.execution("jobs.each:summarize", "")["outcome"] == "succeeded"
    assert "summarize 3" in " ".join(notes(tmp_path))


def test_the_last_shard_to_end_summarises_for_all(tmp_path: Path) -> None:
    fleet = small(tmp_path, ONCE, tenants=6)
    for shard in range(3):
        assert "summarize" not in " ".join(notes(tmp_path))
        assert fleet.run(*AT, f"--shard={shard}/3").code == 0

    assert [note for note in notes(tmp_path) if "summarize" in note] == [
        "summarize 6 {'number': 7, 'text': 'é'}"
    ]
    assert notes(tmp_path).count("prepare") == 1


def test_a_fleet_that_was_found_in_part_is_not_summarised(tmp_path: Path) -> None:
    servers = {
        "files": {"url": "sqlite://", "discover": {"directory": "tenants"}},
        "gone": {"url": "sqlite://", "discover": {"directory": "later"}},
    }
    fleet = small(tmp_path, ONCE, servers=servers)
    assert fleet.run(*AT).code == 4
    assert "summarize" not in " ".join(notes(tmp_path))

    (tmp_path / "later").mkdir()
    (tmp_path / "tenants" / "t2.db").rename(tmp_path / "later" / "t9.db")
    assert fleet.run(*AT).code == 0
    assert "summarize 4" in " ".join(notes(tmp_path))


def test_two_runners_share_one_prepare(tmp_path: Path) -> None:
    waiting = """
        import time
        from pathlib import Path

        def before(ctx):
            Path("began-prepare").touch()
            with Path("notes").open("a") as notes:
                notes.write("prepare\\n")
            while not Path("go").exists():
                time.sleep(0.01)
            return 7

        @job(prepare=before)
        def each(ctx):
            return {"number": ctx.prepared}
    """
    fleet = small(tmp_path, waiting, tenants=10)
    with fleet.started(*AT) as first:
        until(lambda: began(fleet))
        with fleet.started(*AT) as second:
            until(lambda: fleet.query("SELECT count(*) FROM runs") == [(2,)])
            go(fleet)
            both = [finish(first), finish(second)]

    assert notes(tmp_path) == ["prepare"]
    counters = [row["counters"] for each in both for row in each.document["executions"]
                if row["job"] == "jobs.each"]  # fmt: skip
    assert counters == [{"number": 7}] * 10
    assert {each.code for each in both} <= {0, 3}


def test_a_value_that_json_cannot_hold_is_a_failed_prepare(tmp_path: Path) -> None:
    fleet = small(
        tmp_path, "@job(prepare=lambda ctx: {1, 2})\ndef each(ctx):\n    return ctx.prepared\n"
    )
    finished = fleet.run("--json")

    assert finished.code == 1
    assert "not JSON serializable" in finished.execution("jobs.each:prepare", "")["error"]


LATE = """
    from datetime import timedelta
    from pathlib import Path

    from cronrunner import Retry, RetryPolicy

    def before(ctx):
        if ctx.attempt == 1 or Path("down").exists():
            raise Retry("planted", after=timedelta(seconds=1))
        return len(list(Path().glob("did-*")))

    @job(prepare=before, retry=RetryPolicy(attempts=2))
    def late(ctx):
        return {"others": ctx.prepared}

    @job
    def other(ctx):
        Path(f"did-{ctx.tenant.name}").touch()
"""


@pytest.mark.parametrize("processes", [1, 2])
def test_a_prepare_that_is_tried_again_later_keeps_no_other_job_waiting(
    tmp_path: Path, processes: int
) -> None:
    # Two processes may take more than a second to start.
    source = LATE if processes == 1 else LATE.replace("seconds=1", "seconds=4")
    fleet = small(tmp_path, source, runner={"concurrency": 2, "processes": processes})
    finished = fleet.run(*AT)

    assert finished.code == 0, finished.stderr
    assert finished.document["outcomes"] == {"succeeded": 7}
    assert finished.execution("jobs.late:prepare", "")["attempts"] == 2
    # All of them were done when it was tried again.
    assert finished.execution("jobs.late", "t2")["counters"] == {"others": 3}


def test_a_prepare_that_fails_at_last_skips_its_own_tenants_alone(tmp_path: Path) -> None:
    fleet = small(tmp_path, LATE)
    (tmp_path / "down").touch()
    finished = fleet.run(*AT)

    assert finished.document["outcomes"] == {"failed": 1, "succeeded": 3, "skipped": 3}
    assert finished.execution("jobs.late", "t2")["reason"] == "prepare failed"


def test_a_signal_leaves_what_waits_for_a_prepare(tmp_path: Path) -> None:
    source = LATE.replace("seconds=1", "minutes=5")
    fleet = small(tmp_path, source)
    with fleet.started(*AT) as process:
        until(lambda: len(list(tmp_path.glob("did-*"))) == 3)
        process.send_signal(signal.SIGTERM)
        drained = finish(process, 20)

    assert drained.code == 75
    assert drained.execution("jobs.late", "t0")["reason"] == "drained"
    fleet.write_job("jobs", LATE.replace("seconds=1", "seconds=0"))
    resumed = fleet.run("run", "--json", "--resume=last")
    assert resumed.document["outcomes"] == {"succeeded": 4}, resumed.stderr
