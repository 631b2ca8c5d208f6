"""How long the rest of a real run takes, as its progress bar says, and the whole of one as `plan` does."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cronrunner.model import parse_duration
from tests.acceptance.fleet import ROOT, Fleet
from tests.acceptance.small import small

#: Half take less than 40 ms, and some half a second.
SKEWED = """
    import time
    from random import Random

    @job
    def work(ctx):
        time.sleep(min(Random(ctx.tenant.name).lognormvariate(-3.3, 1.2), 0.6))
"""

WATCHED_RUN = """
import json
import sys
import time
from pathlib import Path
from cronrunner.app import App
from cronrunner.app.starting import RunOptions, start_run
from cronrunner.cli.progress import TimeLeft
from cronrunner.events import ExecutionFinished
from cronrunner.planning import Selection

app = App(Path("tenants.yaml"), {})
left, said = TimeLeft(app.permits), []

class Watching:
    def on(self, event):
        left.on(event)
        if isinstance(event, ExecutionFinished):
            said.append((time.monotonic(), left.seconds()))

start_run(app, Selection(), RunOptions(command="watched", watched=True), listeners=[Watching()])
app.close()
print(json.dumps(said))
"""


@pytest.fixture(scope="module", params=[1, 2])
def fleet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    made = small(tmp_path_factory.mktemp("estimate"), SKEWED, tenants=300)
    made.configure(
        {
            "servers": {"files": {"url": "sqlite://", "discover": {"directory": "tenants"}}},
            "runner": {"concurrency": 6, "processes": request.param},
        }
    )
    assert made.run().code == 0
    return made


def watched_run(fleet: Fleet) -> list[tuple[float, float]]:
    done = subprocess.run(
        [sys.executable, "-c", WATCHED_RUN],
        cwd=fleet.folder,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    said: list[tuple[float, float]] = json.loads(done.stdout)
    return said


def test_from_half_of_a_run_on_the_remaining_time_is_within_a_fifth(fleet: Fleet) -> None:
    said = watched_run(fleet)
    began, end = said[0][0], said[-1][0]
    wrong = [
        (at - began, seconds, end - at)
        for at, seconds in said
        if at - began >= (end - began) / 2
        # A machine that is busy with something else for a moment is not foreseen.
        and seconds != pytest.approx(end - at, rel=0.2, abs=(end - began) / 20)
    ]

    assert wrong == []


def test_a_plan_says_how_long_its_run_takes(fleet: Fleet) -> None:
    said = re.search(r"it takes about (\S+), by history", fleet.run("plan").stdout)
    took = fleet.run("--json").document["duration_seconds"]

    assert said is not None
    assert parse_duration(said[1]).total_seconds() == pytest.approx(took, rel=0.3)


def test_a_plan_of_what_was_never_run_says_that_nothing_is_known(tmp_path: Path) -> None:
    new = small(tmp_path, tenants=2)

    assert "is not known: nothing of it was ever run" in new.run("plan").stdout
    assert len(new.run("plan", "--json").document) == 2
