"""A job that is an executable file: what it is told, what its end means, what it cannot hold up."""

import os
import signal
import sqlite3
import subprocess
import textwrap
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.acceptance.fleet import Finished, Fleet, finish
from tests.acceptance.small import SLOT, small, until
from tests.servers import MariaDB

PASSWORD = "pl4nted's \"\\ #word"


def scripts(folder: Path, text: str, *, tenants: int = 1, **config: Any) -> Fleet:
    """Make a small fleet whose job is a script."""
    fleet = small(folder, {}, tenants=tenants)
    if config:
        fleet.configure(YAML(typ="safe").load(fleet.config) | config)
    write(fleet, text)
    return fleet


def write(fleet: Fleet, text: str, name: str = "work.sh") -> None:
    path = fleet.folder / "jobs" / name
    path.write_text(textwrap.dedent(text).lstrip())
    path.chmod(0o755)


def run(fleet: Fleet, *args: str, **given: Any) -> Finished:
    return fleet.run("run", "--scheduled-at", SLOT, "--json", *args, **given)


def outcome(finished: Finished, tenant: str = "t0") -> tuple[str, str | None]:
    row = finished.execution("work", tenant)
    return row["outcome"], row["error"] or row["reason"]


def lines(finished: Finished) -> list[str]:
    """Return what the script has written, as it was logged."""
    logged = finished.log_lines()
    return [line["message"] for line in logged if "stream" in line.get("labels", {})]


def alive(marker: str) -> bool:
    """Tell whether a process is there whose command line holds a text."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker.encode() in path.read_bytes():
                return True
        except OSError:
            continue
    return False


def test_a_script_is_told_what_it_is_to_do(tmp_path: Path) -> None:
    fleet = scripts(
        tmp_path,
        """
        #!/bin/sh
        # name: work
        # option: keep_days = 30, minimum 1, for how long
        # option: careful = true
        # option: roles = [admin, member]
        # Deletes what is old.
        env | grep ^CRONRUNNER_ | sort
        pwd
        sqlite3 "$CRONRUNNER_DATABASE" "INSERT INTO done VALUES ('work', '$CRONRUNNER_SLOT')"
        """,
        jobs={"work": {"options": {"keep_days": 7}}},
    )
    finished = run(fleet, env={"CRONRUNNER_CONFIG": "tenants.yaml"})

    assert outcome(finished) == ("succeeded", None)
    *told, folder = lines(finished)
    values = dict(each.removeprefix("CRONRUNNER_").split("=", 1) for each in told)
    assert values.pop("RUN") == finished.document["run"]
    assert values == {
        "CONFIG": "tenants.yaml",
        "JOB": "work",
        "TENANT": "t0",
        "SERVER": "files",
        "TIMEZONE": "UTC",
        "KIND": "sqlite",
        "DATABASE": str(tmp_path / "tenants" / "t0.db"),
        "SLOT": SLOT,
        "ATTEMPT": "1",
        "DRY_RUN": "false",
        "IDEMPOTENCY_KEY": f"work/t0/{SLOT}",
        "OPTION_KEEP_DAYS": "7",
        "OPTION_CAREFUL": "true",
        "OPTION_ROLES": "admin,member",
    }
    assert folder == str(tmp_path)
    with closing(sqlite3.connect(tmp_path / "tenants" / "t0.db")) as tenant:
        assert tenant.execute("SELECT * FROM done").fetchall() == [("work", SLOT)]
    (job,) = fleet.run("jobs", "--json").document
    assert (job["origin"], job["description"]) == ("work.sh:1", "Deletes what is old.")


def test_every_line_is_logged_with_tenant_and_job(tmp_path: Path) -> None:
    fleet = scripts(
        tmp_path,
        "#!/bin/sh\n# name: work\necho one; echo; echo two >&2; printf three\n",
        tenants=2,
    )
    logged = [each for each in run(fleet).log_lines() if "stream" in each.get("labels", {})]

    assert sorted(
        (each["cronrunner"]["tenant"], each["cronrunner"]["job"], each["message"])
        for each in logged
    ) == [(t, "work", text) for t in ("t0", "t1") for text in ("one", "three", "two")]
    streams = {each["message"]: each["labels"]["stream"] for each in logged}
    assert streams == {"one": "stdout", "two": "stderr", "three": "stdout"}


#: How a script ends, the outcome, and its error or reason.
ENDS = {
    "exit 0": ("succeeded", None),
    "echo no >&2; exit 0": ("succeeded", None),
    "echo first >&2; echo last >&2; exit 3": ("failed", "ScriptError: exit status 3: last"),
    "echo only on stdout; exit 4": ("failed", "ScriptError: exit status 4"),
    "kill -9 $$": ("failed", "ScriptError: ended by SIGKILL"),
    "echo busy >&2; exit 75": ("failed", "Retry: busy"),
    "echo nothing to do; exit 77": ("skipped", "nothing to do"),
}


def test_its_exit_status_is_the_outcome(tmp_path: Path) -> None:
    fleet = small(tmp_path, {}, tenants=1)
    for number, end in enumerate(ENDS):
        write(fleet, f"#!/bin/sh\n# name: work{number}\n{end}\n", name=f"work{number}.sh")
    finished = run(fleet)

    rows = [finished.execution(f"work{number}", "t0") for number in range(len(ENDS))]
    found = [(row["outcome"], row["error"] or row["reason"]) for row in rows]
    assert dict(zip(ENDS, found, strict=True)) == ENDS
    causes = {each["cause"] for each in finished.document["causes"]}
    assert "ScriptError: exit status 4" in causes


def test_status_75_is_tried_again_and_the_attempt_is_told(tmp_path: Path) -> None:
    fleet = scripts(
        tmp_path,
        """
        #!/bin/sh
        # name: work
        # retries: 1
        [ "$CRONRUNNER_ATTEMPT" = 2 ] || exit 75
        """,
    )
    # The first wait is 30 s, less a random part; nothing else shortens it.
    (fleet.folder / "jobs" / "quick.py").write_text(
        "from datetime import timedelta\nimport cronrunner.model as m\n"
        "m.RetryPolicy.__init__.__kwdefaults__['wait'] = timedelta(milliseconds=50)\n"
    )
    finished = run(fleet)

    assert finished.execution("work", "t0")["attempts"] == 2
    assert outcome(finished) == ("succeeded", None)


STUBBORN = [
    "trap '' TERM; while true; do sleep 0.1; done",
    "exec sleep 40",
    "sleep 40 & wait",
    "yes",
    "exec >&- 2>&-; sleep 40",
    "yes | tr -d '\\n'",
]


def test_whatever_it_does_it_ends_with_its_timeout(tmp_path: Path) -> None:
    fleet = small(tmp_path, {}, tenants=len(STUBBORN), runner={"concurrency": len(STUBBORN)})
    for number, stubborn in enumerate(STUBBORN):
        head = f"#!/bin/sh\n# name: work{number}\n# tenants: t{number}\n# timeout: 500ms\n"
        write(fleet, f"{head}{stubborn}\n", name=f"work{number}.sh")
    fleet.write_job("x.sql", "-- name: x_after\nINSERT INTO done VALUES ('after', :slot)")
    finished = run(fleet)

    for number in range(len(STUBBORN)):
        row = finished.execution(f"work{number}", f"t{number}")
        error = "DeadlineError: the job's timeout of 500ms is over"
        assert (row["outcome"], row["error"]) == ("timed_out", error)
        assert row["duration_seconds"] < 3
        assert finished.outcomes["x_after", f"t{number}"] == "succeeded"
    assert len(lines(finished)) <= 1000 * len(STUBBORN)
    assert not alive(f"{tmp_path}/jobs/")


def test_time_runs_out_for_everything_that_it_has_started(tmp_path: Path) -> None:
    marker = f"31.{tmp_path.stat().st_ino}"
    fleet = scripts(
        tmp_path,
        f"#!/bin/sh\n# name: work\n# timeout: 500ms\n(trap '' TERM; sleep {marker}) & sleep 40\n",
    )

    assert outcome(run(fleet))[0] == "timed_out"
    assert not alive(marker)


def test_a_child_that_is_left_behind_holds_nothing_up_and_is_ended(tmp_path: Path) -> None:
    marker = f"32.{tmp_path.stat().st_ino}"
    fleet = scripts(tmp_path, f"#!/bin/sh\n# name: work\nsleep {marker} &\necho done\n")
    finished = run(fleet)

    assert outcome(finished) == ("succeeded", None)
    assert finished.execution("work", "t0")["duration_seconds"] < 3
    assert lines(finished) == ["done"]
    assert not alive(marker)


def test_a_child_of_another_session_that_keeps_the_pipe_open_holds_nothing_up(
    tmp_path: Path,
) -> None:
    fleet = scripts(
        tmp_path,
        """
        #!/bin/sh
        # name: work
        setsid sh -c 'echo $$ > child; exec sleep 40' &
        while [ ! -s child ]; do sleep 0.02; done
        """,
    )
    finished = run(fleet)
    pid = int((tmp_path / "child").read_text())
    os.kill(pid, signal.SIGKILL)

    assert outcome(finished) == ("succeeded", None)
    assert finished.execution("work", "t0")["duration_seconds"] < 3


def test_a_flood_is_logged_within_limits_and_takes_no_memory(tmp_path: Path) -> None:
    fleet = scripts(
        tmp_path,
        """
        #!/bin/sh
        # name: work
        head -c 50000000 /dev/zero | tr '\\0' x
        echo
        seq 100000
        echo the end >&2
        exit 1
        """,
    )
    finished = run(fleet)

    assert outcome(finished) == ("failed", "ScriptError: exit status 1: the end")
    logged = lines(finished)
    assert len(logged) == 1000
    assert max(map(len, logged)) <= 1010
    (more,) = [each for each in finished.log_lines() if "more than is logged" in each["message"]]
    assert int(more["labels"]["lines_left_out"]) == 100002 - 1000


@pytest.mark.parametrize("processes", [1, 2])
def test_a_drain_ends_it_when_the_grace_is_over(tmp_path: Path, processes: int) -> None:
    fleet = scripts(
        tmp_path,
        "#!/bin/sh\n# name: work\ntrap '' TERM\n> began$CRONRUNNER_TENANT\n"
        "while true; do sleep 0.1; done\n",
        tenants=2,
        runner={"grace": "500ms", "concurrency": 2, "processes": processes},
    )
    with fleet.started("run", "--json") as process:
        until(lambda: len(list(tmp_path.glob("began*"))) == 2)
        process.send_signal(signal.SIGTERM)
        finished = finish(process, 20)

    assert finished.code == 75
    assert set(finished.outcomes.values()) == {"interrupted"}
    assert not alive(f"{tmp_path}/jobs/work.sh")


def test_a_dry_run_leaves_it_out(tmp_path: Path) -> None:
    fleet = scripts(tmp_path, "#!/bin/sh\n# name: work\ntouch began\n")
    fleet.write_job("after.sql", "DELETE FROM done")
    finished = run(fleet, "--dry-run")

    assert outcome(finished)[0] == "skipped"
    assert not (tmp_path / "began").exists()


def test_check_says_what_keeps_a_file_from_being_a_job(tmp_path: Path) -> None:
    fleet = scripts(
        tmp_path,
        "#!/bin/sh\n# name: work\n# timeout: soon\n# scope: fleet\n# option: a = 1, minimum 2\ntrue\n",
    )
    for name, text, mode in (
        ("silent.sh", "#!/bin/sh\n# schedule: 0 4 * * *\n", 0o644),
        ("bare.sh", "#!/bin/sh\necho\n", 0o755),
        ("library.sh", "# Functions for others.\n", 0o644),
        ("headless.sh", "# name: headless\necho\n", 0o755),
    ):
        path = tmp_path / "jobs" / name
        path.write_text(text)
        path.chmod(mode)
    document = fleet.run("check", "--json").document

    assert [(each["file"], each["line"]) for each in document["errors"]] == [
        ("headless.sh", 1), ("work.sh", 3), ("work.sh", 4), ("work.sh", 5),
    ]  # fmt: skip
    assert "#!/bin/sh" in document["errors"][0]["text"]
    warnings = {each["file"]: each["text"] for each in document["warnings"] if each["file"]}
    assert warnings == {
        "silent.sh": "is not executable, and no job: chmod +x silent.sh",
        "bare.sh": "has no header such as `# name: billing.remind`, and is no job",
    }


@pytest.mark.parametrize("first", ["#!/bin/nosuch -e", "#! /bin/sh\r"])
def test_an_interpreter_that_is_not_there_is_named(tmp_path: Path, first: str) -> None:
    fleet = small(tmp_path, {}, tenants=1)
    path = tmp_path / "jobs" / "work.sh"
    path.write_bytes(f"{first}\n# name: work\ntrue\n".encode())
    path.chmod(0o755)

    shown = repr(first)
    expected = f"work.sh cannot be started: what its first line names is not there: {shown}"
    assert outcome(run(fleet)) == ("failed", f"ScriptError: {expected}")
    (warning,) = [
        each for each in fleet.run("check", "--json").document["warnings"] if each["file"]
    ]
    assert warning["file"] == "work.sh"
    assert repr(first.split(maxsplit=1)[0][2:] or "/bin/sh\r") in warning["text"]


SECRET = """
    #!/bin/sh
    # name: work
    # timeout: 30s
    mariadb --defaults-extra-file="$CRONRUNNER_MYSQL_DEFAULTS" "$CRONRUNNER_DATABASE" \\
        -e "INSERT INTO done VALUES ('$CRONRUNNER_USER')" || exit
    [ "$(stat -c %a "$CRONRUNNER_MYSQL_DEFAULTS" "$CRONRUNNER_PASSWORD_FILE" | sort -u)" = 600 ] || exit 9
    cp "$CRONRUNNER_PASSWORD_FILE" was
    dirname "$CRONRUNNER_PASSWORD_FILE" > where
    touch began
    while [ ! -e go ]; do sleep 0.02; done
    cat was >&2
    exit 1
"""


def test_the_password_is_in_a_file_and_nowhere_that_others_see(
    tmp_path: Path, mariadb: MariaDB, prefix: str
) -> None:
    name = f"{prefix}acorn"
    mariadb.create_databases([name], "CREATE TABLE done (who VARCHAR(99))")
    mariadb.create_user(f"{prefix}u", PASSWORD, on=f"`{name}`.*")
    server = {
        "url": f"mysql+pymysql://{prefix}u:${{SERVER_WORD}}@127.0.0.1:{mariadb.port}",
        "discover": {"databases": name},
    }
    fleet = Fleet(tmp_path, {"servers": {"main": server}}, {})
    write(fleet, SECRET)
    environment = {"SERVER_WORD": PASSWORD, "COPY": f"x {PASSWORD} y", "KEPT": "kept"}
    with fleet.started("run", "--json", env=environment) as process:
        until((tmp_path / "began").exists)
        shown = subprocess.run(
            ["ps", "axeww"], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        scripts_shown = [line for line in shown if "work.sh" in line]
        environs = [
            path.read_bytes()
            for path in Path("/proc").glob("[0-9]*/environ")
            if b"CRONRUNNER_MYSQL_DEFAULTS" in readable(path)
        ]
        (tmp_path / "go").touch()
        finished = finish(process)

    assert (tmp_path / "was").read_text() == PASSWORD
    assert mariadb.execute("SELECT who FROM done", database=name) == [(f"{prefix}u",)]
    assert scripts_shown
    assert environs
    assert all(PASSWORD not in line for line in scripts_shown)
    assert all(PASSWORD.encode() not in each and b"KEPT=kept" in each for each in environs)
    assert not Path((tmp_path / "where").read_text().strip()).exists()
    assert outcome(finished, name) == ("failed", "ScriptError: exit status 1: [redacted]")
    assert PASSWORD not in finished.stdout + finished.stderr


def readable(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
