"""What is written for the fleet: with the success of the work, into the ledger's own database."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from tests.acceptance.fleet import ROOT, Fleet
from tests.acceptance.small import SLOT, small

AT = ("run", "--json", "--scheduled-at", SLOT)

TELLING = """
    from pathlib import Path

    from jobs.outbox import enqueue

    def after(ctx):
        rows, told = 0, 0
        for row in ctx.results():
            rows += row["counters"].get("rows", 0)
            told += enqueue(ctx, "total", "email", "ops@example.org", "Total", "said once 🎁")
        return {"rows": rows, "told": told}

    @job(summarize=after)
    def each(ctx):
        return {"rows": 2}

    @job(scope="fleet")
    def once(ctx):
        told = enqueue(ctx, "once", "slack", "https://slack.invalid/x", "", "hello")
        if Path("fail").exists():
            raise ValueError("planted")
        return {"told": int(told)}

    @job(scope="fleet")
    def commits(ctx):
        with ctx.fleet_engine.begin() as connection:
            connection.execute(text("DELETE FROM fleet_outbox"))

    @job
    def nosy(ctx):
        ctx.fleet_engine
"""
FILES = {"told": TELLING} | {
    name: (ROOT / "jobs" / name).read_text() for name in ("outbox.py", "schema.py", "wording.py")
}
Make = Callable[..., Fleet]


@pytest.fixture(params=["sqlite", "mariadb"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Make a fleet whose ledger is on each kind of database."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    if request.param == "mariadb":
        server = request.getfixturevalue("mariadb")
        name = request.getfixturevalue("prefix") + "ledger"
        server.create_databases([name])
        url = server.url(database=name)

    def make(isolation: str = "thread") -> Fleet:
        runner = {"concurrency": 2, "isolation": isolation}
        return small(tmp_path, FILES, ledger=url, runner=runner)

    make.url = url  # type: ignore[attr-defined]
    return make


def queued(make: Make) -> list[tuple[Any, ...]]:
    engine = create_engine(make.url)  # type: ignore[attr-defined]
    with engine.connect() as connection:
        found = connection.execute(
            text("SELECT dedupe_key, body, source_job, status FROM fleet_outbox ORDER BY 1")
        )
        rows = [tuple(row) for row in found]
    engine.dispose()
    return rows


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_messages_of_the_fleet_are_queued_once(make: Make, isolation: str) -> None:
    fleet = make(isolation)
    first = fleet.run(*AT, "each", "once")

    assert first.code == 0, first.stderr
    assert first.execution("told.each:summarize", "")["counters"] == {"rows": 6, "told": 1}
    assert queued(make) == [
        ("once", "hello", "told.once", "pending"),
        ("total", "said once 🎁", "told.each", "pending"),
    ]

    again = fleet.run(*AT, "each", "once", "--again")
    assert again.execution("told.once", "")["counters"] == {"told": 0}
    assert again.execution("told.each:summarize", "")["counters"] == {"rows": 6, "told": 0}
    assert len(queued(make)) == 2


def test_work_that_fails_has_queued_nothing(make: Make, tmp_path: Path) -> None:
    fleet = make()
    (tmp_path / "fail").touch()

    assert fleet.run(*AT, "once").code == 1
    assert queued(make) == []


def test_a_dry_run_queues_nothing_and_says_what_it_would(make: Make) -> None:
    fleet = make()
    dry = fleet.run(*AT, "--dry-run", "once", "commits")

    assert dry.execution("told.once", "")["counters"] == {"told": 1}
    assert dry.execution("told.once", "")["rows_changed"] == 1
    assert dry.execution("told.commits", "")["error"].startswith("dry run: the job commits")
    assert queued(make) == []


def test_the_job_of_a_tenant_has_no_way_to_the_ledger(make: Make) -> None:
    nosy = make().run(*AT, "nosy", "--tenant=t0")

    assert nosy.execution("told.nosy", "t0")["error"].startswith("FleetOnlyError: ")
