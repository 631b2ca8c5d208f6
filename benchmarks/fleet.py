"""A private MariaDB with small tenants, and cronrunner's configuration for it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.measuring import Finished, installed, run
from tests.servers import HOST, MariaDB

STATEMENT = "SELECT COUNT(*) FROM items"

_TABLE = (
    "CREATE TABLE items (id INT PRIMARY KEY)",
    "INSERT INTO items VALUES (1), (2), (3)",
)
_CONFIGURATION = """\
ledger: sqlite:///var/ledger.db
servers:
  main:
    url: mysql+pymysql://{user}@{host}:{port}
    password: ${{BENCH_PASSWORD}}
    discover: {{databases: "bench_*"}}
log: {{format: json, level: info}}
"""
_ALL_CPUS = "runner: {one_cpu: false}\n"
_JOB = f'''\
from sqlalchemy import text

from cronrunner import job


@job(schedule="0 0 * * *", timeout="1m")
def count(ctx):
    """Count the items."""
    return {{"items": ctx.connection.execute(text("{STATEMENT}")).scalar_one()}}
'''


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The tenants, and a folder with a configuration that finds them."""

    server: MariaDB
    folder: Path
    tenants: tuple[str, ...]

    @property
    def environ(self) -> Mapping[str, str]:
        """What the configuration refers to."""
        return {"BENCH_PASSWORD": self.server.password}

    @property
    def log(self) -> Path:
        """Return where the lines of the newest run are."""
        return self.folder / "run.log"

    def run(
        self, *, only: str | None = None, config: str = "tenants.yaml"
    ) -> tuple[Finished, float]:
        """Run the job on all tenants; return the process, and the seconds of the run within it."""
        # Through a shell, for the log to go to a file as it does in a container.
        chosen = f" --config={config}" + ("" if only is None else f" --tenant={only}")
        command = f'exec "{installed("cronrunner")}" run{chosen} 2> "{self.log}"'
        done = run(["sh", "-c", command], folder=self.folder, **self.environ)
        last = json.loads(self.log.read_text().splitlines()[-1])
        if last["cronrunner"]["outcomes"] != {"succeeded": 1 if only else len(self.tenants)}:
            raise RuntimeError(f"a run did not go well: {last}")
        return done, last["event"]["duration"] / 1e9

    def resident_megabytes(self, at: tuple[int, ...]) -> tuple[float, ...]:
        """Return the memory of a run when it has finished as many executions as ``at`` says."""
        found: list[float] = []
        finished = 0
        with subprocess.Popen(
            [installed("cronrunner"), "run"],
            cwd=self.folder,
            env={**os.environ, **self.environ},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            for line in process.stderr or ():
                finished += _is_finished(json.loads(line))
                if len(found) < len(at) and finished == at[len(found)]:
                    found.append(_resident_megabytes(process.pid))
        if process.returncode != 0 or len(found) != len(at):
            raise RuntimeError(f"a run did not go well: exit code {process.returncode}")
        return tuple(found)


@contextmanager
def make_fleet(count: int) -> Iterator[Fleet]:
    """Start a server, make its tenants, and remove all of it at the end."""
    with MariaDB(general_log=False) as server, TemporaryDirectory() as name:
        folder = Path(name)
        tenants = tuple(f"bench_{number:04d}" for number in range(count))
        server.create_databases(tenants, *_TABLE)
        configuration = _CONFIGURATION.format(user=server.admin, host=HOST, port=server.port)
        (folder / "tenants.yaml").write_text(configuration)
        (folder / "all-cpus.yaml").write_text(configuration + _ALL_CPUS)
        (folder / "jobs").mkdir()
        (folder / "jobs" / "bench.py").write_text(_JOB)
        yield Fleet(server=server, folder=folder, tenants=tenants)


def _is_finished(line: Mapping[str, Any]) -> bool:
    action: str = line["event"]["action"]
    return action == "execution.finished"


def _resident_megabytes(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} has ended")
