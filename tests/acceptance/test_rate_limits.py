"""One limit for all visits of a run, wherever they are made."""

from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.small import small

TAKING = """
    from datetime import timedelta

    @job
    def take(ctx):
        limit = ctx.rate_limit("service", per_second=0.01, burst=10)
        return {"taken": sum(limit.take() for _ in range(3))}

    @job
    def asked_to_wait(ctx):
        limit = ctx.rate_limit("other", per_second=100)
        taken = limit.take()
        limit.pause(ctx.now + timedelta(minutes=5))
        return {"taken": int(taken)}

    @job(timeout="5s")
    def waits(ctx):
        ctx.rate_limit("slow", per_second=0.1).wait()
"""


@pytest.mark.parametrize(
    "runner",
    [{"concurrency": 6}, {"concurrency": 2, "isolation": "process"}, {"concurrency": 4, "processes": 2}],
    ids=["threads", "isolated", "processes"],
)  # fmt: skip
def test_a_limit_and_a_pause_hold_over_the_whole_run(
    tmp_path: Path, runner: dict[str, Any]
) -> None:
    fleet = small(tmp_path, TAKING, tenants=6, runner=runner)
    finished = fleet.run("run", "--json", "take", "asked_to_wait")
    assert finished.code == 0, finished.stderr
    taken = {
        job: sum(
            row["counters"]["taken"]
            for row in finished.document["executions"]
            if row["job"] == f"jobs.{job}"
        )
        for job in ("take", "asked_to_wait")
    }

    assert taken["take"] == 10
    # Those that were at it already when the first one paused.
    assert 1 <= taken["asked_to_wait"] <= runner["concurrency"]

    # Another run has limits of its own.
    again = fleet.run("run", "--json", "take", "--tenant=t0")
    assert again.execution("jobs.take", "t0")["counters"] == {"taken": 3}


def test_who_would_wait_beyond_the_timeout_is_told_at_once(tmp_path: Path) -> None:
    fleet = small(tmp_path, TAKING)
    finished = fleet.run("run", "--json", "waits")

    assert finished.document["outcomes"] == {"succeeded": 1, "timed_out": 2}
    assert finished.document["duration_seconds"] < 4
