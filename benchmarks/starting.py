"""How long it takes from the start of a process to the first statement of a job.

``python -m benchmarks.starting``: a private MariaDB, thirty job files, one tenant. The job writes
the time at which its statement is about to go, and the server the time at which it has come.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from benchmarks.measuring import installed, python
from benchmarks.tables import Row, Wanted, table
from tests.servers import HOST, MariaDB

_TENANT = "starting_0000"
_CONFIGURATION = """\
ledger: sqlite:///var/ledger.db
servers:
  main:
    url: mysql+pymysql://{user}@{host}:{port}
    password: ${{BENCH_PASSWORD}}
    discover: {{databases: "starting_*"}}
log: {{format: json, level: info}}
"""
_FIRST_JOB = '''\
import time
from pathlib import Path

from sqlalchemy import text

from cronrunner import job


@job(schedule="0 0 * * *", timeout="1m")
def first(ctx):
    """Say when the first statement was done."""
    came = ctx.connection.execute(text("SELECT UNIX_TIMESTAMP(NOW(6))")).scalar_one()
    Path("came").write_text(str(came))
'''
_JOB = '''\
from datetime import timedelta

from sqlalchemy import text

from cronrunner import job

DELETE = text("DELETE FROM items WHERE id > :id")


@job(schedule="{number} 3 * * *", timeout="5m", retries=2)
def clean(ctx):
    """Remove what is old."""
    before = ctx.slot - timedelta(days=30)
    return {{"deleted": ctx.connection.execute(DELETE, {{"id": before.day + 1000}}).rowcount}}
'''
_FIRST_STATEMENT = "`cronrunner --tenant=X`, start to first statement"
#: Job files beside the first one.
_OTHERS = 29


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A folder with thirty job files and a configuration."""

    folder: Path
    environ: Mapping[str, str]

    def first_statement_seconds(self) -> float:
        """Run all jobs on one tenant; return when the first statement came to the server."""
        started = time.time()
        self.run(f"--tenant={_TENANT}")
        return float((self.folder / "came").read_text()) - started

    def seconds(self, *arguments: str) -> float:
        """Return how long a command takes."""
        started = time.monotonic()
        self.run(*arguments)
        return time.monotonic() - started

    def run(self, *arguments: str) -> None:
        """Run a command to its end."""
        subprocess.run(
            [installed("cronrunner"), *arguments],
            cwd=self.folder,
            env={**os.environ, **self.environ},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )


@contextmanager
def make_project() -> Iterator[Project]:
    """Start a server with one tenant, and write thirty job files."""
    with MariaDB(general_log=False) as server, TemporaryDirectory() as name:
        server.create_databases([_TENANT], "CREATE TABLE items (id INT PRIMARY KEY)")
        folder = Path(name)
        configuration = _CONFIGURATION.format(user=server.admin, host=HOST, port=server.port)
        (folder / "tenants.yaml").write_text(configuration)
        jobs = folder / "jobs"
        jobs.mkdir()
        (jobs / "a_first.py").write_text(_FIRST_JOB)
        for number in range(_OTHERS):
            (jobs / f"job_{number:02}.py").write_text(_JOB.format(number=number))
        yield Project(folder=folder, environ={"BENCH_PASSWORD": server.password})


def measure(rounds: int) -> list[Row]:
    """Measure starts, one of each kind in each round."""
    with make_project() as project:
        # Makes the ledger, and what Python keeps of imported files.
        project.run(f"--tenant={_TENANT}")
        found = [_measure(project) for _ in range(rounds)]
    wanted = {_FIRST_STATEMENT: Wanted(at_most=0.7)}
    return [
        Row(
            name=name,
            unit="s",
            values=tuple(each[name] for each in found),
            wanted=wanted.get(name),
        )
        for name in found[0]
    ]


def _measure(project: Project) -> Mapping[str, float]:
    bare = time.monotonic()
    subprocess.run(python("-c", "pass"), check=True)
    bare = time.monotonic() - bare
    return {
        "`python -c pass`": bare,
        "`cronrunner --help`": project.seconds("--help"),
        "`cronrunner history`": project.seconds("history"),
        _FIRST_STATEMENT: project.first_statement_seconds(),
        "`cronrunner --tenant=X`, all of it": project.seconds(f"--tenant={_TENANT}"),
    }


@click.command()
@click.option("--rounds", default=11, show_default=True, type=click.IntRange(1))
def main(rounds: int) -> None:
    """Measure how long commands take to start."""
    rows = measure(rounds)
    print(f"{_OTHERS + 1} job files, {rounds} rounds; Python {sys.version.split()[0]}\n")
    print(table(rows))


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.starting")
