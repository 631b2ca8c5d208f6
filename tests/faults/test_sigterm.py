"""SIGTERM at any moment of a large run: all of it is recorded, and nothing goes on anywhere."""

import signal
import time
from pathlib import Path

import pytest

from tests.acceptance.fleet import Fleet, finish
from tests.acceptance.joins import ENDLESS
from tests.acceptance.small import SLOT, until
from tests.acceptance.watching import counting_connections
from tests.faults.conftest import Repetition
from tests.servers import MariaDB

TENANTS = 200
LIMIT = 16
GRACE_SECONDS = 2.0
USER = "fault_term"
FAULT = "SIGTERM in a run of 200 tenants"

#: Most take 0.2 s, a quarter some seconds, the longest 30 s; asleep, computing, or waiting for a lock.
JOBS = (
    f"""
    ENDLESS = "{ENDLESS}"
"""
    """
    from pathlib import Path

    SLOW = ("SELECT SLEEP({s})", "SELECT GET_LOCK('fault_term', {s})", ENDLESS)

    @job(timeout="5m")
    def work(ctx):
        number = int(ctx.tenant.name[-3:])
        ctx.execute("INSERT INTO {rows}.done VALUES (:tenant)")
        if not Path("short").exists():
            seconds = {0: 30, 1: 10, 2: 3, 3: 1, 4: 2}.get(number % 20, 0.2)
            statement = SLOW[number // 20 % 3] if seconds > 5 else SLOW[0]
            ctx.connection.exec_driver_sql(statement.replace("{s}", str(seconds)))
        return {"number": number}
"""
)


@pytest.fixture(scope="module")
def server(mariadb: MariaDB, own_prefix: str) -> MariaDB:
    mariadb.create_databases(f"{own_prefix}t{n:03}" for n in range(TENANTS))
    mariadb.create_user(USER, "pw")
    return mariadb


@pytest.mark.repeated(few=3, many=10)
def test_sigterm_ends_a_run_of_200_tenants_within_its_grace_and_resume_does_exactly_the_rest(
    server: MariaDB,
    own_prefix: str,
    prefix: str,
    tmp_path: Path,
    repetition: Repetition,
) -> None:
    server.create_databases([f"{prefix}rows"], "CREATE TABLE done (tenant VARCHAR(64))")
    server.create_databases([f"{prefix}ledger"])
    same_server = repetition.number % 2 == 0
    fleet = make_fleet(tmp_path, server, own_prefix, prefix, same_server=same_server)

    def rows() -> list[str]:
        done = server.execute(f"SELECT tenant FROM {prefix}rows.done")
        return sorted(tenant for (tenant,) in done)

    def working() -> list[object]:
        mine = [row for row in server.process_list() if row["user"] == USER]
        return [row for row in mine if row["command"] != "Sleep"]

    def recorded(run: str) -> dict[str, int]:
        sql = f"SELECT outcome, COUNT(*) FROM executions WHERE run = '{run}' GROUP BY outcome"
        here = server.execute(sql, database=f"{prefix}ledger") if same_server else fleet.query(sql)
        return dict(here)

    after = repetition.dice.uniform(0, 8 if repetition.long else 2)
    with counting_connections(server, USER) as connections:
        with fleet.started("run", "--json", "--scheduled-at", SLOT) as process:
            until(working)
            time.sleep(after)
            process.send_signal(signal.SIGTERM)
            sent = time.monotonic()
            drained = finish(process)
            took = time.monotonic() - sent
        # The server notices a moment later that a client is gone.
        until(lambda: not working(), 1.0)
        done = rows()
        (tmp_path / "short").touch()
        rest = fleet.run("run", "--json", "--resume", "last")

    assert drained.code == 75, drained.stderr
    assert took < GRACE_SECONDS + 2, f"SIGTERM {after:.3f} s after the first statement"
    assert len(drained.outcomes) == TENANTS
    assert set(drained.outcomes.values()) <= {"succeeded", "interrupted", "skipped"}
    reasons = {row["reason"] for row in drained.document["executions"]}
    assert reasons <= {None, "drained", "grace expired"}
    succeeded = {tenant for (_, tenant), o in drained.outcomes.items() if o == "succeeded"}
    assert done == sorted(succeeded)
    assert recorded(drained.document["run"]) == drained.document["outcomes"]

    assert (rest.code, set(rest.outcomes.values())) == (0, {"succeeded"}), rest.stderr
    assert {tenant for _, tenant in rest.outcomes} == {t for _, t in drained.outcomes} - succeeded
    assert rows() == sorted(tenant for _, tenant in drained.outcomes)
    assert max(connections) <= LIMIT
    repetition.tally.add(
        FAULT,
        repetitions=1,
        succeeded_before=len(succeeded),
        cut_off=drained.document["outcomes"].get("interrupted", 0),
        done_by_resume=len(rest.outcomes),
        statements_left=0,
    )
    repetition.tally.highest(FAULT, ms_to_the_exit_at_most=round(took * 1000))
    repetition.tally.highest(FAULT, **{f"connections_at_most_of_{LIMIT}": max(connections)})


def make_fleet(
    folder: Path, server: MariaDB, own_prefix: str, prefix: str, *, same_server: bool
) -> Fleet:
    main = {
        "url": server.url(USER, "pw"),
        "max_connections": LIMIT,
        "discover": {"databases": f"{own_prefix}t*"},
    }
    at = {"server": "main", "database": f"{prefix}ledger"}
    config = {
        "servers": {"main": main},
        "runner": {"grace": f"{GRACE_SECONDS:.0f}s", "concurrency": 12},
        **({"ledger": at} if same_server else {}),
    }
    return Fleet(folder, config, {"term": JOBS.replace("{rows}", f"{prefix}rows")})
