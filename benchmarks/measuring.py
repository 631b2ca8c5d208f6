"""Starting processes and taking their measure; medians and spreads."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

#: Where the packages `benchmarks` and `tests` are.
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A process that ended well."""

    wall_seconds: float
    cpu_seconds: float
    output: str


def run(command: Sequence[str], *, folder: Path = ROOT, **environ: str) -> Finished:
    """Run a command to its end and measure it. Raises what it said if it fails."""
    before = _children_cpu_seconds()
    started = time.monotonic()
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    wall_seconds = time.monotonic() - started
    cpu_seconds = _children_cpu_seconds() - before
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.returncode}\n{done.stderr[-4000:]}")
    return Finished(
        wall_seconds=wall_seconds,
        cpu_seconds=cpu_seconds,
        output=done.stdout,
    )


def _children_cpu_seconds() -> float:
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


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a value for each round."""

    name: str
    unit: str
    values: tuple[float, ...]
    wanted: str = ""

    def __str__(self) -> str:
        low, high = min(self.values), max(self.values)
        shown = f"{_number(median(self.values))} {self.unit}".strip()
        return f"| {self.name} | {shown} | {_number(low)} .. {_number(high)} | {self.wanted} |"


def table(rows: Sequence[Row]) -> str:
    """Write rows as Markdown."""
    head = "| measured | median | lowest .. highest | wanted |\n|---|--:|--:|---|"
    return "\n".join([head, *map(str, rows)])


def column(rounds: Sequence[Mapping[str, float]], name: str) -> tuple[float, ...]:
    """Return one value of every round."""
    return tuple(each[name] for each in rounds)


def ratio(rounds: Sequence[Mapping[str, float]], above: str, below: str) -> tuple[float, ...]:
    """Return how two values compare, round by round."""
    return tuple(each[above] / each[below] for each in rounds)


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return (
        f"{value:.1f}"
        if abs(value) >= 10
        else f"{value:.2f}"
        if abs(value) >= 1
        else f"{value:.3f}"
    )
