"""A slot is done once, whoever triggers it and however often."""

from pathlib import Path

from tests.acceptance.fleet import finish
from tests.acceptance.small import SLOT, go, small, written

AT = ("run", "--json", "--scheduled-at", SLOT)


def test_the_same_slot_run_twice_is_executed_once_and_says_so(tmp_path: Path) -> None:
    fleet = small(tmp_path)
    first = fleet.run(*AT)
    # The same instant, written in another way.
    second = fleet.run("run", "--json", "--scheduled-at", "2026-03-01T03:00:00+01:00")

    assert (first.code, second.code) == (0, 0)
    assert second.document["duplicates"] == 3
    assert (second.document["executions"], second.document["outcomes"]) == ([], {})
    assert set(written(fleet).values()) == {1}
    text = fleet.run("run", "--scheduled-at", SLOT).stdout
    assert "nothing was executed" in text
    assert "3 of this slot were done already: nothing was repeated" in text


def test_a_run_without_a_slot_repeats_nothing_and_is_repeated_freely(tmp_path: Path) -> None:
    fleet = small(tmp_path)
    for _ in range(2):
        assert fleet.run("--json").document["outcomes"] == {"succeeded": 3}

    assert set(written(fleet).values()) == {2}


def test_again_repeats_a_slot_on_purpose(tmp_path: Path) -> None:
    fleet = small(tmp_path)
    fleet.run(*AT)
    again = fleet.run(*AT, "--again", "--tenant=t1")

    assert (again.code, again.document["duplicates"]) == (0, 0)
    assert written(fleet) == {"t0": 1, "t1": 2, "t2": 1}
    assert fleet.query("SELECT fence FROM executions WHERE tenant = 't1' ORDER BY id") == [
        (1,), (2,),
    ]  # fmt: skip


def test_a_failure_is_an_answer_that_closes_the_slot(tmp_path: Path) -> None:
    fleet = small(tmp_path)
    fleet.write_job("jobs", "@job\ndef work(ctx):\n    raise ValueError('planted')\n")
    first = fleet.run(*AT)
    second = fleet.run(*AT)

    assert (first.code, second.code) == (1, 0)
    assert second.document["duplicates"] == 3


def test_two_runners_at_the_same_instant_execute_each_once_between_them(tmp_path: Path) -> None:
    fleet = small(tmp_path, tenants=60)
    fleet.run("check", "--connect")
    processes = [fleet.start(*AT) for _ in range(2)]
    both = [finish(process) for process in processes]

    assert set(written(fleet).values()) == {1}
    assert sum(each.document["outcomes"].get("succeeded", 0) for each in both) == 60
    assert {each.code for each in both} <= {0, 3}


def test_tenants_that_are_new_are_done_in_a_slot_that_was_done(tmp_path: Path) -> None:
    fleet = small(tmp_path)
    fleet.run(*AT)
    (fleet.folder / "tenants" / "t9.db").write_bytes(
        (fleet.folder / "tenants" / "t2.db").read_bytes()
    )
    second = fleet.run(*AT)

    assert set(second.outcomes) == {("jobs.work", "t9")}
    assert second.document["duplicates"] == 3


def test_what_failed_is_named_where_a_slot_is_done_and_last_looks_past_what_did_nothing(
    tmp_path: Path,
) -> None:
    fleet = small(tmp_path)
    fleet.write_job(
        "jobs",
        """
        from pathlib import Path

        @job
        def work(ctx):
            if ctx.tenant.name != "t0" and not Path("go").exists():
                raise ValueError("planted")
        """,
    )
    first = fleet.run("run", "--scheduled-at", SLOT, "--json").document["run"]
    resumed = fleet.run("run", "--resume", "last")
    go(fleet)

    assert resumed.code == 0
    assert "3 of this slot were done already" in resumed.stdout
    assert (
        f"2 of them did not end well; to repeat what failed there:"
        f" cronrunner run --only-failed {first}\n"
    ) in resumed.stdout
    repeated = fleet.run("run", "--only-failed", "last", "--json")
    assert repeated.document["outcomes"] == {"succeeded": 2}, repeated.stderr
    assert "did not end well" not in fleet.run("run", "--scheduled-at", SLOT).stdout


def test_of_many_jobs_that_failed_on_a_tenant_no_other_is_repeated(tmp_path: Path) -> None:
    fleet = small(tmp_path, tenants=1)
    names = ("a", "b", "c", "d")
    failing = "@job\ndef {}(ctx):\n    raise ValueError('planted')\n"
    fleet.write_job("more", "\n".join(failing.format(name) for name in names))
    few = fleet.run("run", "work", "more.a", "more.b")
    all_of_them = fleet.run("run")

    assert "again: cronrunner run more.a more.b --tenant=t0\n" in few.stdout
    command = all_of_them.stdout.rstrip().rpartition("again: cronrunner ")[2].split()
    assert command[:2] == ["run", "--only-failed"]
    assert len(fleet.run(*command, "--json").outcomes) == len(names)
