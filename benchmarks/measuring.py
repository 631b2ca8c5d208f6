"""Starting processes and taking their measure."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

#: Where the packages `benchmarks` and `tests` are.
ROOT = Path(__file__).resolve().parent.parent
#: Nothing that is measured takes nearly as long.
_LIMIT_SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A process that ended well."""

    wall_seconds: float
    cpu_seconds: float
    output: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one turn of one way took."""

    #: Tenants, or executions where a tenant has many.
    count: int
    seconds: float
    #: Of the client.
    cpu_seconds: float = 0.0
    #: That the server was asked to execute.
    statements: int = 0
    #: With the start and the end of the process.
    whole_seconds: float = 0.0
    #: Of `processes`: from the plan to the first execution; not part of `seconds`.
    start_seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Return how many are done in a second."""
        return self.count / self.seconds

    @property
    def cpu_milliseconds(self) -> float:
        """Return the client's CPU time for each."""
        return self.cpu_seconds * 1000 / self.count

    @property
    def statements_each(self) -> float:
        """Return how many statements the server was sent for each."""
        return self.statements / self.count

    def whole_rate(self, count: int) -> float:
        """Return the rate of a process that does ``count``: its start is paid once."""
        start = self.whole_seconds - self.seconds
        return count / (start + self.seconds * count / self.count)

    def without(self, start: Sample) -> Sample:
        """Take the CPU and the statements out which a run on a few tenants has as well."""
        if self.count == start.count:
            return self
        share = self.count / (self.count - start.count)
        return Sample(
            count=self.count,
            seconds=self.seconds,
            cpu_seconds=(self.cpu_seconds - start.cpu_seconds) * share,
            statements=round((self.statements - start.statements) * share),
            whole_seconds=self.whole_seconds,
            start_seconds=self.start_seconds,
        )


#: Name of a way -> what its turn took.
Round = Mapping[str, Sample]


def run(command: Sequence[str], *, folder: Path = ROOT, text: str = "", **environ: str) -> Finished:
    """Give a command ``text`` to read and run it to its end. Raises what it said if it fails."""
    before = children_cpu_seconds()
    started = time.monotonic()
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environ},
        input=text,
        capture_output=True,
        text=True,
        timeout=_LIMIT_SECONDS,
        check=False,
    )
    wall_seconds = time.monotonic() - started
    cpu_seconds = children_cpu_seconds() - before
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.returncode}\n{done.stderr[-4000:]}")
    return Finished(
        wall_seconds=wall_seconds,
        cpu_seconds=cpu_seconds,
        output=done.stdout,
    )


def children_cpu_seconds() -> float:
    """Return the CPU time of the processes that this one has started and awaited."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def python(*arguments: str) -> list[str]:
    """Return the command of this environment's Python."""
    return [sys.executable, *arguments]


def installed(name: str) -> str:
    """Return the path of a command of this environment."""
    return str(Path(sys.executable).with_name(name))


def cpu_milliseconds(work: Callable[[], None], times: int) -> float:
    """Return the CPU time of this process for one of the ``times`` that ``work`` stands for."""
    before = time.process_time()
    work()
    return (time.process_time() - before) / times * 1000
