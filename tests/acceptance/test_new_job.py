"""`cronrunner new job`: what it writes passes as it is, and nothing is ever overwritten."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.acceptance.fleet import ROOT, Fleet
from tests.acceptance.small import small
from tests.servers import MariaDB


def run_pytest(folder: Path, *paths: str, url: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-W", "error", *paths],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "CRONRUNNER_TEST_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_what_it_writes_passes_as_it_is(tmp_path: Path, mariadb: MariaDB) -> None:
    fleet = small(tmp_path, {}, tenants=2)
    wrote = fleet.run("new", "job", "billing.remind")
    assert wrote.stdout.splitlines()[:2] == [
        "wrote jobs/billing.py", "wrote tests/test_billing_remind.py",
    ]  # fmt: skip
    assert fleet.run("new", "job", "cleanup.old_carts", "--sql").code == 0
    assert fleet.run("new", "job", "alone").code == 0

    assert fleet.run("check").code == 0
    finished = fleet.run("run", "--json")
    assert finished.code == 0
    assert set(finished.outcomes.values()) == {"succeeded"}
    assert finished.execution("billing.remind", "t1")["counters"] == {"days": 30}
    assert finished.execution("cleanup.old_carts", "t1")["counters"] == {"found": 1}
    assert finished.execution("alone.alone", "t1")["counters"] == {"days": 30}

    tested = run_pytest(tmp_path, url=mariadb.url())
    assert tested.returncode == 0, tested.stdout
    assert "18 passed" in tested.stdout
    alone = run_pytest(tmp_path, "tests/test_cleanup_old_carts.py")
    assert "3 passed" in alone.stdout


def test_what_it_writes_is_well_formed(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, "servers: {files: {url: 'sqlite://', discover: {list: [a]}}}\n", {})
    fleet.run("new", "job", "billing.remind")
    rules = ("--no-cache", "--isolated", "--line-length=100", "--select=E,F,I,UP,B,SIM,RET")
    written = ["jobs/billing.py", "tests/test_billing_remind.py"]
    for command in (("check", *rules), ("format", "--diff", *rules[:3])):
        ruff = Path(sys.executable).with_name("ruff")
        done = subprocess.run(
            [ruff, *command, *written], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout


def test_it_writes_into_the_folder_of_the_configuration(tmp_path: Path) -> None:
    config = {
        "job_folder": "night/work",
        "servers": {"files": {"url": "sqlite://", "discover": {"directory": "tenants"}}},
    }
    fleet = Fleet(tmp_path / "project", config, {})
    (fleet.folder / "tenants").mkdir()
    with closing(sqlite3.connect(fleet.folder / "tenants" / "t.db")) as tenant:
        tenant.execute("CREATE TABLE t (i)")
    fleet.folder = tmp_path
    done = fleet.run("new", "job", "a.b", "--sql", "--config=project/tenants.yaml")

    assert (tmp_path / "project" / "night" / "work" / "a_b.sql").is_file(), done.stderr
    fleet.folder = tmp_path / "project"
    assert fleet.run("run", "a.b").code == 0
    assert run_pytest(tmp_path / "project").returncode == 0


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    fleet = small(tmp_path, {}, tenants=1)
    (tmp_path / "jobs" / "billing.py").write_text("# mine\n")
    done = fleet.run("new", "job", "billing.remind")

    assert done.code == 2
    assert "jobs/billing.py is there already; nothing was written" in done.stderr
    assert "write it there by hand: @job above `def remind(ctx):`" in done.stderr
    assert (tmp_path / "jobs" / "billing.py").read_text() == "# mine\n"
    assert not (tmp_path / "tests").exists()


@pytest.mark.parametrize("kind", [(), ("--sql",)])
def test_a_name_that_another_job_has_is_refused_wherever_that_is(
    tmp_path: Path, kind: tuple[str, ...]
) -> None:
    fleet = small(
        tmp_path,
        {"other.py": "from cronrunner import job\n\n@job(name='a.b')\ndef x(ctx): ...\n"},
        tenants=1,
    )
    done = fleet.run("new", "job", "a.b", *kind)

    assert done.code == 2
    assert "there is a job a.b already, at other.py:3" in done.stderr
    assert [path.name for path in (tmp_path / "jobs").glob("*.*")] == ["other.py"]


@pytest.mark.parametrize(
    "name", ["a b", "A.b", "a.b.c", "a.class", "_a", "../a", "a/b", "a." + 80 * "b"]
)
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    fleet = small(tmp_path, {}, tenants=1)
    done = fleet.run("new", "job", name)

    assert done.code == 2
    assert "expected a name such as billing.remind" in done.stderr
    assert list((tmp_path / "jobs").iterdir()) == []


def test_a_word_of_python_is_named(tmp_path: Path) -> None:
    done = small(tmp_path, {}, tenants=1).run("new", "job", "schema.class")

    assert "got 'schema.class', of which class is a word of Python" in done.stderr


@pytest.mark.as_written("it is about the file that init has written")
def test_init_writes_a_first_job_and_its_test(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "unused", "", {})
    fleet.folder = tmp_path
    done = fleet.run("init", "here")

    assert done.code == 0
    assert "cronrunner new job billing.remind" in done.stdout
    tested = run_pytest(tmp_path / "here")
    assert tested.returncode == 0, tested.stdout
    assert "3 passed" in tested.stdout
