"""A release that fails everywhere is noticed on a few tenants and stopped there."""

from collections import Counter
from pathlib import Path

import pytest

from tests.acceptance.fleet import Fleet
from tests.acceptance.joins import numbers
from tests.acceptance.watching import counting_connections
from tests.faults.conftest import Tally
from tests.servers import MariaDB

TENANTS = 2000
LIMIT = 10
CONCURRENCY = 8

JOBS = """
    @job
    def release(ctx):
        with open("calls.log", "a") as log:
            log.write(f"{ctx.tenant.name}\\n")
        ctx.execute("UPDATE not_migrated SET done = 1")
"""


@pytest.fixture
def fleet(mariadb: MariaDB, prefix: str, tmp_path: Path) -> Fleet:
    mariadb.create_databases([f"{prefix}all"])
    mariadb.create_user(f"{prefix}cron", "pw", on=f"`{prefix}%`.*")
    query = (
        f"{numbers(TENANTS // 2)}"
        f" SELECT CONCAT('agency_', a.i * 2 + b.i) AS name, '{prefix}all' AS `database`"
        " FROM n a, n b WHERE b.i <= 2"
    )
    main = {
        "url": mariadb.url(f"{prefix}cron", "pw"),
        "discover": {"query": query},
        "max_connections": LIMIT,
    }
    config = {"servers": {"main": main}, "runner": {"concurrency": CONCURRENCY}}
    return Fleet(tmp_path, config, {"new": JOBS})


def called(fleet: Fleet) -> list[str]:
    return (fleet.folder / "calls.log").read_text().splitlines()


def test_a_failing_release_costs_five_canaries_of_2000_tenants(fleet: Fleet, tally: Tally) -> None:
    run = fleet.run("run", "--canary", "5")

    assert run.code == 5, run.stderr
    assert len(called(fleet)) == 5
    assert run.stdout.count("ProgrammingError 1146") == 1
    recorded = fleet.query("SELECT outcome, reason, COUNT(*) FROM executions GROUP BY 1, 2")
    assert sorted(recorded) == [("failed", None, 5), ("skipped", "stopped", TENANTS - 5)]
    tally.add("a failing release, 2,000 tenants, --canary 5", executed=5, causes_printed=1)


def test_a_run_stops_at_two_percent_of_failures_and_begins_no_further_visit(
    fleet: Fleet, mariadb: MariaDB, prefix: str, tally: Tally
) -> None:
    with counting_connections(mariadb, f"{prefix}cron") as connections:
        run = fleet.run("run", "--json", "--max-failures", "2%")

    limit = TENANTS * 2 // 100
    assert run.code == 5, run.stderr
    # The one that reaches the limit is not in flight any more.
    assert limit <= len(called(fleet)) <= limit + CONCURRENCY - 1
    assert len(set(called(fleet))) == len(called(fleet))
    assert Counter(run.document["outcomes"]) == Counter(
        failed=len(called(fleet)), skipped=TENANTS - len(called(fleet))
    )
    assert [cause["count"] for cause in run.document["causes"]] == [len(called(fleet))]
    assert f"stopped at the limit of {limit} failures" in run.document["errors"][0]
    assert max(connections) <= LIMIT
    fault = "a failing release, 2,000 tenants, --max-failures 2%"
    tally.add(fault, limit=limit, executed=len(called(fleet)))
