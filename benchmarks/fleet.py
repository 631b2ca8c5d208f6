"""A private MariaDB with small tenants, and cronrunner's configurations for it."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pymysql

from benchmarks.jobs import Work, write_jobs
from benchmarks.measuring import Sample, installed, run
from tests.servers import HOST, MariaDB

#: The tenants that a run is compared with to leave out its start.
FEW = 10
_TABLE = (
    "CREATE TABLE items (id INT PRIMARY KEY)",
    "INSERT INTO items VALUES (1), (2), (3)",
)
#: Names of tenants end with as many digits.
_DIGITS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How cronrunner is configured. What is empty is left to its defaults."""

    connections: str = ""
    processes: int = 1
    one_cpu: bool = True
    threads: int = 0

    @property
    def name(self) -> str:
        """Return what the configuration's file and ledger are called."""
        cpus = "" if self.one_cpu else "-all-cpus"
        return f"{self.connections or 'as-it-is'}-{self.processes}{cpus}"

    def __str__(self) -> str:
        said = [f"`{self.connections}`"] if self.connections else []
        said += [f"{self.processes} processes"] if self.processes > 1 else []
        said += [] if self.one_cpu else ["`one_cpu: false`"]
        return ", ".join([*said, _count(self.threads, "thread")] if self.threads else said)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The tenants, and a folder with configurations that find them."""

    server: MariaDB
    tls: bool
    folder: Path
    tenants: tuple[str, ...]
    #: Asks the server how much it was asked.
    status: pymysql.connections.Connection[Any]

    @property
    def environ(self) -> Mapping[str, str]:
        """What the configurations refer to."""
        return {"BENCH_PASSWORD": self.server.password}

    def accepts(self, setting: Setting) -> bool:
        """Tell whether this version of cronrunner knows what the setting says."""
        config = self.configure(setting, "bench_*", "check")
        done = subprocess.run(
            [installed("cronrunner"), "check", f"--config={config}"],
            cwd=self.folder,
            env={**os.environ, **self.environ},
            capture_output=True,
            check=False,
        )
        return done.returncode == 0

    def run(self, work: Work, setting: Setting, *, few: bool = False) -> Sample:
        """Run the jobs on all of their tenants, or on a few of them."""
        tenants = min(FEW, work.tenants) if few else work.tenants
        config = self.configure(setting, first(work.tenants), str(work.tenants))
        chosen = f" --tenant='bench_{'0' * (_DIGITS - 1)}?'" if few else ""
        threads = f" --concurrency={setting.threads}" if setting.threads else ""
        log = self.folder / "run.log"
        # Through a shell, for the log to go to a file as it does in a container.
        command = f'exec "{installed("cronrunner")}" run "{work.jobs}" --config={config}'
        before = self.statements()
        done = run(
            ["sh", "-c", f'{command}{threads}{chosen} 2> "{log}"'],
            folder=self.folder,
            **self.environ,
        )
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        finished, executions = _line(lines, "run.finished"), tenants * work.each
        if finished["cronrunner"]["outcomes"] != {"succeeded": executions}:
            raise RuntimeError(f"a run did not go well: {finished}")
        start_seconds = self._start_seconds(config, lines) if setting.processes > 1 else 0.0
        return Sample(
            count=executions,
            seconds=finished["event"]["duration"] / 1e9 - start_seconds,
            cpu_seconds=done.cpu_seconds,
            # The second question is counted as well.
            statements=self.statements() - before - 1,
            whole_seconds=done.wall_seconds,
            start_seconds=start_seconds,
        )

    def statements(self) -> int:
        """Return how many statements and commands the server has got, goodbyes left out."""
        with self.status.cursor() as cursor:
            cursor.execute("SHOW GLOBAL STATUS WHERE Variable_name IN ('Questions', 'Connections')")
            counts = {name: int(count) for name, count in cursor.fetchall()}
        return counts["Questions"] - counts["Connections"]

    def resident_megabytes(
        self, glob: str, at: tuple[int, ...], setting: Setting
    ) -> tuple[float, ...]:
        """Return the memory of a run when it has finished as many executions as ``at`` says."""
        config = self.configure(setting, glob, f"memory-{at[-1]}")
        found: list[float] = []
        finished = 0
        with subprocess.Popen(
            [installed("cronrunner"), "run", "bench.nothing", f"--config={config}"],
            cwd=self.folder,
            env={**os.environ, **self.environ},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            for line in process.stderr or ():
                finished += '"execution.finished"' in line
                if len(found) < len(at) and finished == at[len(found)]:
                    found.append(_resident_megabytes(process.pid))
        if process.returncode != 0 or len(found) != len(at):
            raise RuntimeError(f"a run did not go well: exit code {process.returncode}")
        return tuple(found)

    def configure(self, setting: Setting, glob: str | list[str], size: str) -> str:
        """Write a configuration; each has a ledger of its own, which remembers its runs."""
        name = f"{setting.name}-{size}"
        server = {
            "url": f"mysql+pymysql://{self.server.admin}@{HOST}:{self.server.port}",
            "password": "${BENCH_PASSWORD}",
            "max_connections": 40,
            "tls": "required" if self.tls else "auto",
            "discover": {"databases": glob},
        }
        if setting.connections:
            server["connections"] = setting.connections
        # Whatever happens, no run stays behind.
        runner: dict[str, Any] = {"one_cpu": setting.one_cpu, "deadline": "10m"}
        if setting.processes > 1:
            runner["processes"] = setting.processes
        document = {
            "ledger": f"sqlite:///var/{name}.db",
            "servers": {"main": server},
            "runner": runner,
            "log": {"format": "json", "level": "info"},
        }
        (self.folder / f"{name}.yaml").write_text(json.dumps(document))
        return f"{name}.yaml"

    def _start_seconds(self, config: str, lines: Iterable[Mapping[str, Any]]) -> float:
        """Return how long the newest run took from its plan to its first execution."""
        planned = _line(lines, "run.planned")
        path = self.folder / "var" / config.replace(".yaml", ".db")
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as ledger:
            question = "SELECT min(started_at) FROM executions WHERE run = ?"
            ((first_started,),) = ledger.execute(question, (planned["cronrunner"]["run"],))
        started = datetime.fromisoformat(first_started).replace(tzinfo=UTC)
        return (started - datetime.fromisoformat(planned["@timestamp"])).total_seconds()


@contextmanager
def make_fleet(count: int, *, tls: bool = False) -> Iterator[Fleet]:
    """Start a server, make its tenants, and remove all of it at the end."""
    with MariaDB(tls=tls, general_log=False) as server, TemporaryDirectory() as name:
        folder = Path(name)
        tenants = tuple(f"bench_{number:0{_DIGITS}d}" for number in range(count))
        server.create_databases(tenants, *_TABLE)
        (folder / "jobs").mkdir()
        write_jobs(folder / "jobs", tenants)
        with closing(server.connect()) as status:
            yield Fleet(server=server, tls=tls, folder=folder, tenants=tenants, status=status)


def first(count: int) -> list[str]:
    """Return globs for the names of the first ``count`` tenants, and of no others."""
    digits, globs = f"{count:0{_DIGITS}d}", []
    for place, digit in enumerate(digits):
        if digit != "0":
            rest = "?" * (_DIGITS - place - 1)
            globs.append(f"bench_{digits[:place]}[0-{int(digit) - 1}]{rest}")
    return globs


def _line(lines: Iterable[Mapping[str, Any]], action: str) -> Mapping[str, Any]:
    return next(line for line in lines if line.get("event", {}).get("action") == action)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _resident_megabytes(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} has ended")
