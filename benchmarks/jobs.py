"""The jobs that are measured, and what they take at the least."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

STATEMENT = "SELECT COUNT(*) FROM items"
#: Jobs of a tenant, where it has many.
MANY = 20
WAIT_SECONDS = 0.05
#: Of the durations of skewed jobs: their mean, and the spread of their logarithm.
_MEAN_SECONDS = 0.04
_SIGMA = 1.5
_SEED = 3

_HEAD = """\
import time

from sqlalchemy import text

from cronrunner import job

SECONDS = {seconds}


@job(schedule="0 0 * * *", timeout="1m")
def wait(ctx):
    \"\"\"Wait for the server.\"\"\"
    ctx.connection.execute(text("SELECT SLEEP({wait})"))


@job(schedule="0 0 * * *", timeout="1m")
def skewed(ctx):
    \"\"\"Wait for the server for as long as this tenant takes.\"\"\"
    seconds = SECONDS[ctx.tenant.name]
    ctx.connection.execute(text("SELECT SLEEP(:seconds)"), {{"seconds": seconds}})


@job(schedule="0 0 * * *", timeout="1m")
def compute(ctx):
    \"\"\"Take two milliseconds of this thread's CPU.\"\"\"
    until = time.thread_time() + 0.002
    while time.thread_time() < until:
        pass


@job(schedule="0 0 * * *", timeout="1m")
def nothing(ctx):
    \"\"\"Ask for nothing of the tenant's own.\"\"\"
    ctx.connection.execute(text("SELECT 1"))
"""
_COUNT = '''

@job(schedule="0 0 * * *", timeout="1m")
def {name}(ctx):
    """Count the items."""
    return {{"items": ctx.connection.execute(text("{statement}")).scalar_one()}}
'''


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a run does."""

    jobs: str
    #: The first so many of the fleet.
    tenants: int
    #: Jobs of each tenant.
    each: int = 1

    @property
    def executions(self) -> int:
        """Return how many executions a run makes."""
        return self.tenants * self.each


def write_jobs(folder: Path, tenants: Sequence[str]) -> None:
    """Write the job files."""
    seconds = dict(zip(tenants, skewed_seconds(len(tenants)), strict=True))
    head = _HEAD.format(seconds=json.dumps(seconds), wait=WAIT_SECONDS)
    (folder / "bench.py").write_text(head + _counting("count"))
    imports = "from sqlalchemy import text\n\nfrom cronrunner import job\n"
    many = (_counting(f"count_{number:02d}") for number in range(MANY))
    (folder / "many.py").write_text(imports + "".join(many))


def skewed_seconds(tenants: int) -> list[float]:
    """Return how long each tenant's skewed job takes: the same in each run."""
    dice = random.Random(_SEED)
    middle = math.log(_MEAN_SECONDS) - _SIGMA**2 / 2
    return [round(dice.lognormvariate(middle, _SIGMA), 6) for _ in range(tenants)]


def least_seconds(durations: Sequence[float], threads: int) -> float:
    """Return what no order can go below."""
    return max(sum(durations) / threads, *durations)


def _counting(name: str) -> str:
    return _COUNT.format(name=name, statement=STATEMENT)
