"""What a command does not use it does not pay for."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.fleet import ROOT
from tests.acceptance.small import small

COMMANDS = (
    "run", "plan", "jobs", "tenants", "history", "show", "pause", "unpause", "check", "serve", "init",
    "new", "sql",
)  # fmt: skip
HEAVY = {"sqlalchemy", "prometheus_client", "pydantic", "alembic", "rich", "structlog", "requests"}

LOADED = """
import json, sys
from cronrunner.cli import main
try:
    main({arguments!r})
except SystemExit as end:
    code = end.code
sys.stderr.write(json.dumps([code, sorted({{name.partition(".")[0] for name in sys.modules}})]))
"""


def loaded(folder: Path, *arguments: str) -> set[str]:
    """Run a command and return the top-level modules that it has imported."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED.format(arguments=list(arguments))],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    code, modules = json.loads(done.stderr[done.stderr.rindex("[0, [") :])
    assert code == 0
    return set(modules)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("-h",),
        ("--version",),
        ("run", "--help"),
        ("pause", "--help"),
        ("init", "x"),
        ("new", "job", "a.b"),
    ],
)
def test_help_and_init_import_nothing_heavy(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert loaded(tmp_path, *arguments) & HEAVY == set()


def test_a_run_on_a_ledger_that_is_there_imports_no_alembic_and_no_metrics(tmp_path: Path) -> None:
    fleet = small(tmp_path)
    fleet.run()
    modules = loaded(fleet.folder, "run", "--tenant=t0")

    assert {"alembic", "prometheus_client", "pymysql", "http"} & modules <= {"http"}


@pytest.mark.parametrize(
    "arguments", [("history",), ("history", "--json"), ("show", "last", "--json")]
)
def test_history_is_read_without_logs_jobs_drivers_and_tables_for_terminals(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    fleet = small(tmp_path)
    fleet.run()
    modules = loaded(fleet.folder, *arguments)

    assert {
        "structlog",
        "rich",
        "alembic",
        "pymysql",
        "prometheus_client",
        "jobs",
    } & modules == set()


def test_the_help_names_every_command_and_the_exit_codes(tmp_path: Path) -> None:
    text = small(tmp_path, tenants=0).run("--help").stdout

    for command in COMMANDS:
        assert f"\n  {command} " in text
    for code in ("0 well", "2 usage", "70 the runner failed", "75 drained"):
        assert code in " ".join(text.split())
