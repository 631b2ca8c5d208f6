"""`cronrunner run`: exit codes, the document, and that no tenant's trouble is another's."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.acceptance.fleet import Finished
from tests.acceptance.small import EXECUTION_KEYS, KEYS, SLOT, moment, small, written

MIXED = """
    class Sabotage(BaseException):
        pass

    @job
    def work(ctx):
        ctx.execute("INSERT INTO done VALUES ('work', :slot)")
        match ctx.tenant.name:
            case "t1":
                raise SystemExit(3)
            case "t2":
                raise Sabotage("planted")
            case "t3":
                raise KeyboardInterrupt
            case "t4":
                raise Skip("nothing to do")
            case "t5":
                raise Cancel("not today")
            case "t6":
                raise ValueError("t6 has 17 of 23")
            case "t7":
                ctx.execute("SELECT * FROM no_such_table")
            case "t8":
                return {"rows": "many"}
        return {"rows": 1}
"""


def is_document(finished: Finished, code: int) -> None:
    """Check what is printed at every exit code: one document, with these keys alone."""
    assert finished.code == code, finished.stderr
    assert set(finished.document) == KEYS
    assert finished.document["schema"] == 1
    assert finished.document["exit_code"] == code
    for row in finished.document["executions"]:
        assert set(row) == EXECUTION_KEYS
        assert moment(row["slot"]) <= moment(row["started_at"])


def test_all_well_is_0(tmp_path: Path) -> None:
    fleet = small(tmp_path)
    finished = fleet.run("run", "--json", "--scheduled-at", SLOT)

    is_document(finished, 0)
    document = finished.document
    assert document["outcomes"] == {"succeeded": 3}
    assert (document["tenants"], document["duplicates"]) == (3, 0)
    assert (document["errors"], document["causes"]) == ([], [])
    assert document["scheduled_at"] == SLOT
    row = finished.execution("jobs.work", "t1")
    assert (row["server"], row["slot"], row["attempts"]) == ("files", SLOT, 1)
    assert (row["reason"], row["error"], row["counters"]) == (None, None, {"rows": 1})
    assert written(fleet) == {"t0": 1, "t1": 1, "t2": 1}


def test_whatever_a_job_raises_is_the_outcome_of_its_own_execution_alone(tmp_path: Path) -> None:
    fleet = small(tmp_path, MIXED, tenants=11)
    finished = fleet.run("--json")

    is_document(finished, 1)
    assert {tenant: outcome for (_, tenant), outcome in finished.outcomes.items()} == {
        "t0": "succeeded", "t1": "failed", "t2": "failed", "t3": "failed", "t4": "skipped",
        "t5": "cancelled", "t6": "failed", "t7": "failed", "t8": "failed", "t9": "succeeded",
        "t10": "succeeded",
    }  # fmt: skip
    # What did not succeed was rolled back.
    assert +written(fleet) == {"t0": 1, "t9": 1, "t10": 1}
    causes = {each["cause"]: each["tenant_names"] for each in finished.document["causes"]}
    assert causes["ValueError: * has # of #"] == ["t6"]
    assert causes["Sabotage: planted"] == ["t2"]
    assert finished.execution("jobs.work", "t4")["reason"] == "nothing to do"
    assert finished.execution("jobs.work", "t7")["error"].startswith(
        "OperationalError SQLITE_ERROR: no such table: no_such_table"
    )
    # The same, in the ledger.
    shown = fleet.run("show", "last", "--json")
    assert shown.document["outcomes"] == finished.document["outcomes"]
    assert shown.document["executions"] == finished.document["executions"]


def test_the_summary_groups_failures_and_says_what_to_do_next(tmp_path: Path) -> None:
    fleet = small(tmp_path, MIXED, tenants=9)
    finished = fleet.run()

    assert finished.code == 1
    assert "ValueError: * has # of #" in finished.stdout
    assert "slowest: t" in finished.stdout
    assert "more: cronrunner show " in finished.stdout
    assert "one of them again: cronrunner run jobs.work --tenant=t" in finished.stdout
    assert "Traceback" not in finished.stdout


def test_of_a_small_run_each_execution_is_shown_and_of_a_large_one_what_did_not_go_well(
    tmp_path: Path,
) -> None:
    fleet = small(
        tmp_path,
        """
        @job
        def work(ctx):
            ctx.note("half of it")
            return {"rows": 3, "errors": 0}
        """,
        tenants=11,
    )
    few = fleet.run("run", "--exclude-tenant=t10")
    row = "half of it rows=3 errors=0"

    assert few.stdout.count(row) == 10
    assert fleet.run("show", "last").stdout.count(row) == 10
    assert row not in fleet.run("run").stdout + fleet.run("show", "last").stdout


def test_a_broken_job_file_is_1_and_the_other_jobs_run(tmp_path: Path) -> None:
    fleet = small(tmp_path)
    fleet.write_job("broken.py", "\nimport no_such_module\n")
    finished = fleet.run("--json")

    is_document(finished, 1)
    assert finished.document["outcomes"] == {"succeeded": 3}
    assert finished.document["errors"] == [
        "broken.py:2: ModuleNotFoundError: No module named 'no_such_module'"
    ]


@pytest.mark.as_written("it is about a mistake in it")
def test_a_mistake_in_the_configuration_is_2_and_nothing_is_run(tmp_path: Path) -> None:
    fleet = small(tmp_path, jbos={})
    finished = fleet.run("--json")

    assert (finished.code, finished.stdout) == (2, "")
    assert "tenants.yaml:15: jbos: expected a known key" in finished.stderr
    assert not fleet.ledger_file.exists()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["jobs.wrok"], "no job 'jobs.wrok'; the nearest is jobs.work"),
        (["--tenant", "t00"], "no tenant 't00'; the nearest is t0"),
        (["--server", "fiels"], "no server fiels; the nearest is files"),
    ],
)
def test_what_is_unknown_is_2_with_the_nearest_names(
    tmp_path: Path, arguments: list[str], error: str
) -> None:
    fleet = small(tmp_path)
    finished = fleet.run("run", "--json", *arguments)

    is_document(finished, 2)
    assert [text.split(", ")[0] for text in finished.document["errors"]] == [error]
    assert +written(fleet) == {}


def test_a_command_behind_options_is_not_only_an_unknown_job(tmp_path: Path) -> None:
    fleet = small(tmp_path)
    finished = fleet.run("--json", "plan", "work")

    assert (finished.code, finished.document["run"]) == (2, None)
    assert "options go behind the command: cronrunner plan --json ..." in finished.stderr
    fleet.write_job("more", "@job\ndef plan(ctx): ...\n")
    assert fleet.run("--json", "plan", "work").code == 0


@pytest.mark.parametrize("command", ["run", "plan", "jobs"])
def test_a_job_whose_file_gives_none_is_missing_for_what_is_wrong_with_it(
    tmp_path: Path, command: str
) -> None:
    fleet = small(tmp_path)
    fleet.write_job("broken.py", "import no_such_module\n")
    fleet.write_job("billing_dump.sh", "#!/bin/sh\n# name: billing.dump\n")

    broken = fleet.run(command, "broken.work")
    assert broken.code == 2
    assert "no job 'broken.work'" in broken.stderr
    assert "broken.py:1: ModuleNotFoundError" in broken.stderr
    script = fleet.run(command, "billing.dump")
    assert "billing_dump.sh: is not executable, and no job: chmod +x" in script.stderr
    assert "ModuleNotFoundError" not in script.stderr
    other = fleet.run(command, "elsewhere")
    assert "it may be in a file that is broken: broken.py\n" in other.stderr


@pytest.mark.parametrize(
    "arguments",
    [["--teant=t0"], ["run", "--shard", "2/2"], ["run", "--scheduled-at", "soon"], ["rnu", "x"],
     ["run", "--label", "gold"], ["run", "--concurrency", "0"]],
)  # fmt: skip
def test_a_command_that_cannot_be_read_is_2_with_a_hint(
    tmp_path: Path, arguments: list[str]
) -> None:
    finished = small(tmp_path, tenants=0).run(*arguments)

    assert (finished.code, finished.stdout) == (2, "")
    assert "Usage: cronrunner" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_source_that_finds_nothing_is_4_and_the_others_run(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    servers = {
        "files": {"url": "sqlite://", "discover": {"directory": "tenants"}},
        "empty": {"url": "sqlite://", "discover": {"directory": "none"}},
        "gone": {"url": "sqlite://", "discover": {"directory": "nowhere"}},
    }
    fleet = small(tmp_path, servers=servers)
    finished = fleet.run("--json")

    is_document(finished, 4)
    assert finished.document["outcomes"] == {"succeeded": 3}
    assert [text.split(":")[0] for text in finished.document["errors"]] == [
        "server empty", "server gone",
    ]  # fmt: skip
    # A tenant that is not found may be on the server that did not answer.
    is_document(fleet.run("run", "--json", "--tenant=t77"), 4)


def test_a_ledger_that_cannot_be_used_is_70_and_nothing_is_run(tmp_path: Path) -> None:
    fleet = small(tmp_path, ledger="sqlite:////dev/null/ledger.db")
    finished = fleet.run("--json")

    is_document(finished, 70)
    assert finished.document["errors"][0].startswith("the ledger cannot be used: ")
    assert +written(fleet) == {}
    assert "Traceback" not in finished.stderr


def test_a_ledger_that_is_lost_in_the_middle_is_70_and_nothing_more_is_begun(
    tmp_path: Path,
) -> None:
    fleet = small(tmp_path, tenants=40)
    assert fleet.run().code == 0
    with closing(sqlite3.connect(fleet.ledger_file)) as ledger:
        ledger.execute(
            "CREATE TRIGGER lost BEFORE INSERT ON executions"
            " BEGIN SELECT RAISE(ABORT, 'planted'); END"
        )
        ledger.commit()
    finished = fleet.run("--json", "--concurrency=1")

    is_document(finished, 70)
    assert finished.document["errors"][0].startswith("the ledger was lost: ")
    assert all(rows <= 2 for rows in written(fleet).values())
    assert sum(written(fleet).values()) < 80
    assert "Traceback" not in finished.stderr


def test_a_mistake_of_the_runner_itself_is_70_with_the_document(tmp_path: Path) -> None:
    fleet = small(tmp_path)
    # Something that no module of the runner knows how to expect.
    fleet.write_job(
        "breaks.py", "from cronrunner import runner\nrunner.Runner._discover = lambda self: 1 / 0\n"
    )
    finished = fleet.run("--json", env={"SOME_TOKEN": "hunter2hunter2"})

    is_document(finished, 70)
    assert finished.document["errors"] == ["the runner itself failed: ZeroDivisionError"]
    assert "the runner itself failed" in finished.stderr


def test_what_jobs_print_does_not_come_into_the_document(tmp_path: Path) -> None:
    fleet = small(tmp_path, "@job\ndef work(ctx):\n    print('hello from a job')\n")
    finished = fleet.run("--json")

    is_document(finished, 0)
    assert "hello from a job" in finished.stderr


# What is chosen.


def test_no_command_is_run(tmp_path: Path) -> None:
    fleet = small(tmp_path)
    short = fleet.run("--tenant=t1", "--json")
    long = fleet.run("run", "--tenant=t1", "--json")

    assert short.outcomes == long.outcomes == {("jobs.work", "t1"): "succeeded"}
    assert written(fleet) == {"t0": 0, "t1": 2, "t2": 0}


def test_the_traceback_of_a_failure_is_in_the_log(tmp_path: Path) -> None:
    fleet = small(tmp_path, "@job\ndef work(ctx):\n    raise ValueError('planted')\n")
    finished = fleet.run("--tenant=t1")

    (line,) = (line for line in finished.log_lines() if "error" in line)
    assert "ValueError: planted" in line["error"]["stack_trace"]
    assert "jobs.py" in line["error"]["stack_trace"]


def test_jobs_and_tenants_are_chosen_together(tmp_path: Path) -> None:
    jobs = {
        "a": "@job\ndef x(ctx): ...\n@job(tenants='t0')\ndef y(ctx): ...\n",
        "b": "@job\ndef x(ctx): ...\n",
    }
    fleet = small(tmp_path, jobs, tenants=4)
    finished = fleet.run(
        "run", "a.*", "--tenant=t[01]", "--tenant=t3", "--exclude-tenant=t1", "--json"
    )

    assert set(finished.outcomes) == {("a.x", "t0"), ("a.y", "t0"), ("a.x", "t3")}


def test_the_shards_of_a_slot_do_all_of_it_once(tmp_path: Path) -> None:
    fleet = small(tmp_path, tenants=9)
    shards = [
        fleet.run("run", "--json", "--scheduled-at", SLOT, f"--shard={n}/3") for n in range(3)
    ]

    assert [finished.code for finished in shards] == [0, 0, 0]
    assert sum(finished.document["tenants"] for finished in shards) == 9
    assert all(finished.document["duplicates"] == 0 for finished in shards)
    assert set(written(fleet).values()) == {1}


def test_configuration_and_slot_can_come_from_the_environment(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    fleet = small(folder)
    named = {
        "CRONRUNNER_CONFIG": str(fleet.config),
        "CRONRUNNER_SCHEDULED_AT": "2026-03-01T03:00+01:00",
    }
    fleet.folder = tmp_path
    finished = fleet.run("--json", env=named)

    is_document(finished, 0)
    assert finished.document["scheduled_at"] == SLOT
    assert (folder / "var" / "ledger.db").exists()


def test_a_file_as_ledger_in_a_container_is_warned_of(tmp_path: Path) -> None:
    fleet = small(tmp_path)
    inside = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    finished = fleet.run(env=inside)

    assert finished.code == 0
    assert "the ledger ledger.db is a file inside this container" in finished.stderr
    assert "is a file inside this container" in fleet.run("check", env=inside).stdout
