"""A job that fails on one tenant night after night is left out there, and comes back by itself."""

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.acceptance.fleet import Finished, Fleet
from tests.acceptance.small import COUNTING, small

BROKEN = ("jobs.work", "t1")
SUMMED = COUNTING.replace(
    "@job\n", "def total(ctx):\n        return {}\n\n    @job(summarize=total)\n"
)
NIGHTS = 3


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """A fleet with a job that was quarantined on a tenant without its table."""
    runner = {"heartbeat": "200ms", "quarantine": {"after": NIGHTS, "probe": "1d"}}
    fleet = small(tmp_path, SUMMED, runner=runner)
    tenant(fleet, "DROP TABLE done")
    nights = [fleet.run("--json") for _ in range(NIGHTS)]
    assert [night.outcomes[BROKEN] for night in nights] == ["failed"] * NIGHTS
    assert [len(night.log_lines("pair.quarantined")) for night in nights] == [0, 0, 1]
    return fleet


def tenant(fleet: Fleet, statement: str) -> None:
    with closing(sqlite3.connect(fleet.folder / "tenants" / "t1.db")) as database:
        database.execute(statement)
        database.commit()


def a_day_passes(fleet: Fleet) -> None:
    """Make the last probe a day older."""
    with closing(sqlite3.connect(fleet.ledger_file)) as ledger:
        ledger.execute("UPDATE statistics SET probed_at = datetime(probed_at, '-1 day') || '.0'")
        ledger.commit()


def assert_left_out(night: Finished) -> None:
    assert night.code == 0, night.stderr
    execution = night.execution(*BROKEN)
    assert execution["outcome"] == "skipped"
    assert execution["reason"].startswith("quarantined since 20")
    assert {night.outcomes["jobs.work", name] for name in ("t0", "t2")} == {"succeeded"}


def test_a_quarantined_pair_is_left_out_and_is_seen_everywhere(fleet: Fleet) -> None:
    night = fleet.run("--json")
    assert_left_out(night)
    # Nobody waits for it.
    assert night.outcomes["jobs.work:summarize", ""] == "succeeded"

    quarantined = {
        row["tenant"]: row["quarantined_jobs"] for row in fleet.run("tenants", "--json").document
    }
    assert quarantined == {"t0": [], "t1": ["jobs.work"], "t2": []}
    planned = {row["tenant"]: row["reason"] for row in fleet.run("plan", "--json").document}
    assert planned["t1"].startswith("quarantined since")
    assert planned["t0"] is None
    textfile = fleet.folder / "out.prom"
    fleet.configure({**json_config(fleet), "metrics": {"textfile": str(textfile)}})
    fleet.run()
    assert 'cronrunner_quarantined_pairs{job="jobs.work"} 1.0' in textfile.read_text()


def json_config(fleet: Fleet) -> dict[str, object]:
    document: dict[str, object] = json.loads(fleet.config.read_text())
    return document


def test_it_is_probed_once_a_day_and_comes_back_when_that_succeeds(fleet: Fleet) -> None:
    a_day_passes(fleet)
    assert fleet.run("--json").outcomes[BROKEN] == "failed"
    assert_left_out(fleet.run("--json"))

    tenant(fleet, "CREATE TABLE done (job TEXT, slot TEXT)")
    assert_left_out(fleet.run("--json"))
    a_day_passes(fleet)
    probe = fleet.run("--json")
    assert probe.outcomes[BROKEN] == "succeeded"
    assert len(probe.log_lines("pair.released")) == 1
    assert fleet.run("--json").outcomes[BROKEN] == "succeeded"


def test_who_names_the_tenant_or_repeats_its_failure_runs_it(fleet: Fleet) -> None:
    assert fleet.run("--json", "--tenant", "t1").outcomes == {BROKEN: "failed"}
    assert_left_out(fleet.run("--json", "--tenant", "t*"))

    # The first of the nights in which it failed.
    run = fleet.query("SELECT run FROM executions WHERE outcome = 'failed' ORDER BY id LIMIT 1")
    again = fleet.run("run", "--json", "--only-failed", str(run[0][0]))
    assert again.outcomes == {BROKEN: "failed"}


def test_it_is_tried_again_when_the_code_of_the_job_has_changed(fleet: Fleet) -> None:
    assert_left_out(fleet.run("--json"))
    fleet.write_job("jobs", SUMMED.replace('{"rows": 1}', '{"rows": 2}'))

    assert fleet.run("--json").outcomes[BROKEN] == "failed"
    # It is judged anew: one failure is not enough.
    assert fleet.run("--json").outcomes[BROKEN] == "failed"


def test_it_can_be_switched_off(fleet: Fleet) -> None:
    config = json_config(fleet)
    fleet.configure({**config, "runner": {"quarantine": {"after": 0}}})

    assert fleet.run("--json").outcomes[BROKEN] == "failed"


def test_days_are_counted_from_slot_to_slot(fleet: Fleet) -> None:
    # The clock stands still between runs that are made up for.
    for day, outcome in ((1, "failed"), (1.5, "skipped"), (2.1, "failed")):
        slot = (datetime.now(UTC) + timedelta(days=day)).isoformat()
        assert fleet.run("--json", "--scheduled-at", slot).outcomes[BROKEN] == outcome
