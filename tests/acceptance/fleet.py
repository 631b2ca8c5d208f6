"""A small world for acceptance tests: a project folder, and the real command run in it.

Logs are JSON on stderr, results are on stdout. The environment of a command is empty but for what
a test gives it.
"""

import json
import os
import sqlite3
import subprocess
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.acceptance.forking import Command

ROOT = Path(__file__).parents[2]

#: What a configuration says where its test does not, by path; `--default` adds to it.
DEFAULTS: dict[tuple[str, ...], Any] = {}

#: Longer than any run of a test: one that hangs fails with its output instead of the test's timeout.
_SECONDS = 90.0


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str

    @cached_property
    def document(self) -> Any:
        """What a command with `--json` printed: one document and nothing else."""
        return json.loads(self.stdout)

    @property
    def outcomes(self) -> dict[tuple[str, str], str]:
        """(job, tenant) -> outcome, from the document."""
        rows = self.document["executions"]
        return {(row["job"], row["tenant"]): row["outcome"] for row in rows}

    def execution(self, job: str, tenant: str) -> dict[str, Any]:
        """One execution of the document."""
        (found,) = (
            row
            for row in self.document["executions"]
            if (row["job"], row["tenant"]) == (job, tenant)
        )
        row: dict[str, Any] = found
        return row

    def log_lines(self, action: str | None = None) -> list[dict[str, Any]]:
        """The lines of the log, or those of one action such as `execution.finished`."""
        return log_lines(self.stderr, action)


def log_lines(stderr: str, action: str | None = None) -> list[dict[str, Any]]:
    """Parse a log in JSON; what is no JSON (a message for people) is left out."""
    lines = [json.loads(line) for line in stderr.splitlines() if line.startswith("{")]
    return [line for line in lines if action in {None, line.get("event", {}).get("action")}]


class Fleet:
    """A folder with `tenants.yaml` and `jobs/`, and the command run in it.

    `config` is YAML or what is written as YAML; `jobs` maps file names to their text. A file whose
    name has no ending is a `.py` file that begins with the usual imports.
    """

    _IMPORTS = "from sqlalchemy import text\n\nfrom cronrunner import Cancel, Skip, job\n\n"

    def __init__(
        self, folder: Path, config: str | Mapping[str, Any], jobs: Mapping[str, str]
    ) -> None:
        self.folder = folder
        self.config = folder / "tenants.yaml"
        self.ledger_file = folder / "var" / "ledger.db"
        (folder / "jobs").mkdir(parents=True, exist_ok=True)
        self.configure(config)
        for name, source in jobs.items():
            self.write_job(name, source)

    def configure(self, config: str | Mapping[str, Any]) -> None:
        """Write another tenants.yaml."""
        if isinstance(config, str):
            config = textwrap.dedent(config)
        if DEFAULTS:
            config = with_defaults(
                YAML(typ="safe").load(config) if isinstance(config, str) else config
            )
        # JSON is YAML.
        written = config if isinstance(config, str) else json.dumps(config, indent=2)
        self.config.write_text(written, encoding="utf-8")

    def write_job(self, name: str, source: str) -> None:
        """Write a file of jobs."""
        source = textwrap.dedent(source)
        path = self.folder / "jobs" / name
        if not path.suffix:
            path, source = path.with_suffix(".py"), self._IMPORTS + source
        path.write_text(source, encoding="utf-8")

    def run(
        self, *arguments: str, env: Mapping[str, str] | None = None, seconds: float = _SECONDS
    ) -> Finished:
        """Run a command to its end."""
        with self.started(*arguments, env=env) as process:
            return finish(process, seconds)

    def start(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start a command; `finish` waits for it, `started` ends it in any case."""
        return Command(
            ["cronrunner", *arguments],
            cwd=self.folder,
            env=self._environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @contextmanager
    def started(
        self, *arguments: str, env: Mapping[str, str] | None = None
    ) -> Iterator[subprocess.Popen[str]]:
        """Start a command that does not outlive the block."""
        process = self.start(*arguments, env=env)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()

    def query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Ask the SQLite ledger."""
        with closing(sqlite3.connect(f"{self.ledger_file.as_uri()}?mode=ro", uri=True)) as ledger:
            return list(ledger.execute(sql, parameters))

    def _environment(self, env: Mapping[str, str] | None) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **(env or {})}


def with_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """Add what every configuration is to say; `*` in a path stands for every name."""
    changed: dict[str, Any] = json.loads(json.dumps(config, default=str))
    for (*path, last), value in DEFAULTS.items():
        sections = [changed]
        for name in path:
            if name == "*":
                sections = [each for section in sections for each in section.values()]
            else:
                sections = [section.setdefault(name, {}) for section in sections]
        for section in sections:
            section.setdefault(last, value)
    return changed


def finish(process: subprocess.Popen[str], seconds: float = _SECONDS) -> Finished:
    """Wait for a started command."""
    try:
        stdout, stderr = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        _, stderr = process.communicate()
        raise AssertionError(f"still running after {seconds} s:\n{stderr}") from None
    return Finished(process.returncode, stdout, stderr)
