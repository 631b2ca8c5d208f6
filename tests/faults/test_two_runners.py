"""Whatever starts twice, and whichever dies: each execution of a slot is done once."""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.fleet import Finished, Fleet, finish
from tests.acceptance.small import WAITING, began, go, small, until, written
from tests.acceptance.watching import counting_connections
from tests.faults.conftest import Repetition
from tests.servers import MariaDB

TENANTS = 24
LIMIT = 7
USER = "fault_two"
KILLED = "two runners on one slot, one killed -9"

JOBS = """
    import time

    INSERT = "INSERT INTO {rows}.done VALUES (:job, :tenant, :slot)"

    def work(ctx, job):
        ctx.execute(INSERT, job=job, tenant=ctx.tenant.name)
        time.sleep(0.03)

    @job(name="plain")
    def plain(ctx):
        work(ctx, "plain")

    @job(name="marked", exactly_once=True)
    def marked(ctx):
        work(ctx, "marked")
"""

Query = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture(scope="module")
def server(mariadb: MariaDB, own_prefix: str) -> MariaDB:
    """Tenants, a table that counts what was done on them, and room for a ledger."""
    mariadb.create_databases([f"{own_prefix}t{n:02}" for n in range(TENANTS)])
    mariadb.create_databases([f"{own_prefix}rows", f"{own_prefix}ledger"])
    mariadb.execute(
        "CREATE TABLE done (job VARCHAR(9), tenant VARCHAR(64), slot DATETIME)",
        database=f"{own_prefix}rows",
    )
    mariadb.create_user(USER, "pw")
    return mariadb


def make_fleet(folder: Path, server: MariaDB, prefix: str, *, same_server: bool) -> Fleet:
    config: dict[str, Any] = {
        "servers": {
            "main": {
                "url": server.url(USER, "pw"),
                "max_connections": LIMIT,
                "discover": {"databases": f"{prefix}t*"},
            }
        },
        "runner": {"concurrency": 3},
    }
    if same_server:
        config["ledger"] = {"server": "main", "database": f"{prefix}ledger"}
    return Fleet(folder, config, {"two": JOBS.replace("{rows}", f"{prefix}rows")})


@pytest.mark.repeated(few=5, many=100)
def test_two_runners_of_which_one_is_killed_and_a_resume_do_everything_once(
    server: MariaDB,
    own_prefix: str,
    tmp_path: Path,
    repetition: Repetition,
) -> None:
    same_server = repetition.number % 2 == 1
    fleet = make_fleet(tmp_path, server, own_prefix, same_server=same_server)
    slot = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(minutes=repetition.number)
    at = ("run", "--json", "--scheduled-at", slot.isoformat())

    def rows() -> Counter[tuple[str, str]]:
        sql = f"SELECT job, tenant FROM {own_prefix}rows.done WHERE slot = %s"
        return Counter(server.execute(sql, (slot.replace(tzinfo=None),)))

    def ledger(sql: str) -> list[tuple[Any, ...]]:
        if same_server:
            return server.execute(sql, database=f"{own_prefix}ledger")
        return fleet.query(sql)

    with counting_connections(server, USER) as connections:
        dead, survivor = kill_one_of_two(fleet, at, rows, repetition.dice)
        where = f"WHERE slot_key = '{slot_key(ledger, dead, survivor)}'"
        dead_run = ledger(f"SELECT run FROM runs {where} AND pid = {dead}")
        # What a dead run left is also done by whoever is given the same slot.
        by_name = bool(dead_run) and repetition.dice.random() < 0.7
        rest = fleet.run("run", "--json", "--resume", dead_run[0][0]) if by_name else fleet.run(*at)

    assert survivor.code in {0, 3}, survivor.stderr
    assert rest.code == 0, rest.stderr
    done = ledger(f"SELECT job, tenant, outcome FROM executions {where}")
    cut = Counter((job, tenant) for job, tenant, outcome in done if outcome == "interrupted")
    succeeded = Counter((job, tenant) for job, tenant, outcome in done if outcome == "succeeded")
    wanted = {(job, f"{own_prefix}t{n:02}"): 1 for n in range(TENANTS) for job in ("plain", "marked")}  # fmt: skip
    assert succeeded == wanted
    assert len(done) == succeeded.total() + cut.total()
    assert set(ledger(f"SELECT state, outcome FROM claims {where}")) == {("closed", "succeeded")}
    # Killed between its commit and its record, an execution is done again; one with a marker is not.
    written_rows = rows()
    assert {key: n for key, n in written_rows.items() if key[0] == "marked"} == {
        key: 1 for key in wanted if key[0] == "marked"
    }
    assert all(written_rows[key] for key in wanted), written_rows
    too_often = {key: n for key, n in written_rows.items() if n > 1 + cut[key]}
    assert not too_often
    assert max(connections) <= 2 * LIMIT

    repetition.tally.add(
        KILLED,
        repetitions=1,
        of_them_with_the_ledger_on_the_tenants_server=int(same_server),
        executions=len(wanted),
        interrupted_and_each_done_again=cut.total(),
        done_twice_after_a_commit_that_was_not_recorded=written_rows.total() - len(wanted),
        done_twice_without_being_interrupted=len(too_often),
    )
    repetition.tally.highest(KILLED, connections_at_most_of_two_runs_with_7_each=max(connections))


def kill_one_of_two(
    fleet: Fleet, at: tuple[str, ...], rows: Callable[[], Counter], dice: random.Random
) -> tuple[int, Finished]:
    """Start two at the same instant and kill one; return its pid and what the other said."""
    with fleet.started(*at) as one, fleet.started(*at) as two:
        victim, other = dice.sample([one, two], 2)
        # A third of them die while they start, the others while they work.
        if dice.random() < 2 / 3:
            until(rows)
            time.sleep(dice.uniform(0, 0.25))
        else:
            time.sleep(dice.uniform(0, 1.0))
        victim.send_signal(signal.SIGKILL)
        victim.communicate(timeout=10)
        return victim.pid, finish(other)


def slot_key(ledger: Query, dead: int, survivor: Finished) -> str:
    """Return how the ledger calls the slot of a run."""
    run = survivor.document["run"]
    ((key,),) = ledger(f"SELECT slot_key FROM runs WHERE run = '{run}'")
    assert ledger(f"SELECT 1 FROM runs WHERE pid <> {dead} AND slot_key = '{key}'")
    return str(key)


@pytest.mark.repeated(few=1, many=10)
def test_of_three_deliveries_of_one_trigger_one_executes_and_the_others_say_why_they_did_not(
    tmp_path: Path, repetition: Repetition
) -> None:
    fleet = small(tmp_path, WAITING)
    at = ("run", "--scheduled-at", f"2026-03-01T02:{repetition.number:02}:00Z", "--concurrency=3")
    fleet.run("check", "--connect")
    with fleet.started(*at) as one, fleet.started(*at) as two, fleet.started(*at) as three:
        processes = [one, two, three]
        until(lambda: sum(process.poll() is not None for process in processes) == 2)
        refused = [finish(process) for process in processes if process.poll() is not None]
        until(lambda: began(fleet) == {"t0", "t1", "t2"})
        (holder,) = (process for process in processes if process.poll() is None)
        go(fleet)
        executed = finish(holder)
    late = [fleet.run(*at) for _ in range(2)]

    assert [each.code for each in refused] == [3, 3], [each.stderr for each in refused]
    for each in refused:
        assert "3 are held by another run that is alive" in each.stdout
    assert (executed.code, "3 succeeded" in executed.stdout) == (0, True), executed.stdout
    assert [each.code for each in late] == [0, 0]
    for each in late:
        assert "nothing was executed" in each.stdout
        assert "3 of this slot were done already: nothing was repeated" in each.stdout
    assert set(written(fleet).values()) == {1}
    repetition.tally.add(
        "three deliveries of one trigger",
        repetitions=1,
        executed=1,
        exit_3_while_it_lived=2,
        exit_0_afterwards=2,
    )
