"""On a Galera cluster: runners that are connected to different nodes do everything once.

Its nodes certify what is committed, and nothing else: named locks and the locks of rows hold on one
node alone, and who commits second is told of a deadlock (1213).
"""

import random
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from hashlib import blake2b
from pathlib import Path

import pytest

from cronrunner.ledger.store import Ledger
from cronrunner.model import Key
from tests.acceptance.fleet import Finished, Fleet, finish
from tests.conformance.conftest import LedgerDatabase, key
from tests.conformance.test_ledger import go, running, said
from tests.servers import Galera, quote

TENANTS = 30
AT = ("run", "--json", "--scheduled-at", "2026-03-01T02:00:00Z")

JOB = """
    import time

    @job{options}
    def charge(ctx):
        ctx.execute("INSERT INTO charges (slot) VALUES (:slot)")
        time.sleep(0.01)
        return {{"charged": 1}}
"""


def make_fleet(
    folder: Path, galera: Galera, prefix: str, *, options: str = "", tenants: int = TENANTS
) -> Fleet:
    """Make a fleet whose tenants and ledger are on the cluster; NODE says by which node."""
    table = "CREATE TABLE charges (id INT AUTO_INCREMENT PRIMARY KEY, slot TEXT)"
    galera.nodes[0].create_databases([f"{prefix}{n:02}" for n in range(tenants)], table)
    galera.nodes[0].create_databases([f"{prefix}ledger"])
    main = {"url": "${NODE}", "discover": {"databases": f"{prefix}*"}, "max_connections": 6}
    config = {
        "ledger": {"server": "main", "database": f"{prefix}ledger"},
        "servers": {"main": main},
        "runner": {"heartbeat": "500ms"},
    }
    return Fleet(folder, config, {"money": JOB.format(options=options)})


def by(galera: Galera, node: int) -> dict[str, str]:
    return {"NODE": galera.nodes[node].url()}


def charges(galera: Galera, prefix: str) -> list[int]:
    # The other node may be a moment behind; it is asked to have caught up first.
    with closing(galera.nodes[1].connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SET wsrep_sync_wait = 1")
        counts = []
        for number in range(TENANTS):
            cursor.execute(f"SELECT COUNT(*) FROM {quote(f'{prefix}{number:02}')}.charges")
            counts.append(cursor.fetchall()[0][0])
        return counts


def conflicts(galera: Galera) -> int:
    names = ("wsrep_local_cert_failures", "wsrep_local_bf_aborts")
    return sum(int(node.status(name)) for node in galera.nodes for name in names)


@pytest.mark.parametrize("repetition", range(5))
def test_two_runners_on_different_nodes_do_each_execution_once_between_them(
    galera: Galera, prefix: str, tmp_path: Path, repetition: int
) -> None:
    fleet = make_fleet(tmp_path, galera, prefix)
    # In the even ones they meet a ledger without tables as well.
    if repetition % 2:
        assert fleet.run("check", "--connect", env=by(galera, 0)).code == 0
    with (
        fleet.started(*AT, env=by(galera, 0)) as one,
        fleet.started(*AT, env=by(galera, 1)) as other,
    ):
        runs = [finish(one), finish(other)]

    assert {run.code for run in runs} <= {0, 3}, [run.stderr[-2000:] for run in runs]
    done = [key for run in runs for key in run.outcomes]
    assert len(done) == len(set(done)) == TENANTS
    assert charges(galera, prefix) == [1] * TENANTS
    again = fleet.run(*AT, env=by(galera, repetition % 2))
    assert (again.code, again.document["duplicates"]) == (0, TENANTS)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("once", [True, False])
def test_one_of_two_runners_is_killed_and_the_slot_is_run_again(
    galera: Galera, prefix: str, tmp_path: Path, seed: int, *, once: bool
) -> None:
    options = "(exactly_once=True)" if once else ""
    fleet = make_fleet(tmp_path, galera, prefix, options=options)
    moment = random.Random(seed).uniform(0.6, 1.4)
    with (
        fleet.started(*AT, env=by(galera, seed % 2)) as killed,
        fleet.started(*AT, env=by(galera, 1 - seed % 2)) as other,
    ):
        threading.Event().wait(moment)
        killed.send_signal(signal.SIGKILL)
        survivor = finish(other)
    rest = fleet.run(*AT, env=by(galera, seed % 2))

    assert survivor.code in {0, 3}, survivor.stderr[-2000:]
    assert rest.code == 0, rest.stderr[-2000:]
    cut = galera.nodes[0].execute(
        "SELECT tenant FROM executions WHERE outcome = 'interrupted'", database=f"{prefix}ledger"
    )
    twice = {tenant.removeprefix(prefix) for (tenant,) in cut}
    for number, count in enumerate(charges(galera, prefix)):
        # Committed and not yet recorded when the process was killed: such a one is done again.
        assert count == 1 or (not once and count == 2 and f"{number:02}" in twice)


def test_claims_of_the_same_keys_at_once_are_granted_to_one_of_two_nodes(
    galera: Galera, prefix: str
) -> None:
    granted: list[list[int]] = []
    before = conflicts(galera)
    for repetition in range(10):
        name = f"{prefix}{repetition}"
        galera.nodes[0].create_databases([name])
        databases = [LedgerDatabase(node.url(database=name), node) for node in galera.nodes]
        databases[0].open().close()
        with ExitStack() as stack:
            both = [
                stack.enter_context(running(database, f"p{n}", 200))
                for n, database in enumerate(databases)
            ]
            assert [said(process) for process in both] == ["ready", "ready"]
            for process in both:
                go(process)
            answers = [[int(part) for part in said(process).split()] for process in both]
        assert [sum(answer) for answer in answers] == [200, 200]
        assert sum(answer[0] for answer in answers) == 200
        granted.append([answer[0] for answer in answers])

    assert conflicts(galera) > before, f"they never met: {granted}"


def test_two_slots_of_a_job_are_not_both_taken_on_two_nodes_at_the_same_instant(
    galera: Galera, prefix: str
) -> None:
    slots = [[key(f"t{n:03}", slot_key=slot) for n in range(100)] for slot in ("one", "two")]
    for repetition in range(10):
        name = f"{prefix}{repetition}"
        galera.nodes[0].create_databases([name])
        databases = [LedgerDatabase(node.url(database=name), node) for node in galera.nodes]
        databases[0].open()
        ledgers = [database.begin(f"r{n}") for n, database in enumerate(databases)]
        together = threading.Barrier(2)

        def claim(
            ledger: Ledger, keys: list[Key], together: threading.Barrier = together
        ) -> tuple[int, int]:
            together.wait()
            claims = ledger.claim(keys, alone={"count"})
            return len(claims.granted), len(claims.overlapping)

        with ThreadPoolExecutor() as pool:
            answers = list(pool.map(claim, ledgers, slots))
        for ledger in [*databases[0].opened, *databases[1].opened]:
            ledger.close()

        assert sorted(answers) == [(0, 100), (100, 0)]


def run_locked(
    fleet: Fleet, galera: Galera, prefix: str, *, held_by: int
) -> tuple[Finished, Counter[str]]:
    digest = blake2b(f"{prefix}00\0money.charge".encode(), digest_size=16).hexdigest()
    with closing(galera.nodes[held_by].connect()) as other, other.cursor() as cursor:
        cursor.execute("SELECT GET_LOCK(%s, 0)", (f"cronrunner:{digest}",))
        done = fleet.run("run", "--json", env=by(galera, 0))
    return done, Counter(done.outcomes.values())


def test_a_server_lock_holds_on_its_own_node_only_and_that_is_said_once(
    galera: Galera, prefix: str, tmp_path: Path
) -> None:
    fleet = make_fleet(tmp_path, galera, prefix, options="(server_lock=True)", tenants=3)

    same, outcomes = run_locked(fleet, galera, prefix, held_by=0)
    assert outcomes == {"succeeded": 2, "skipped": 1}
    other, outcomes = run_locked(fleet, galera, prefix, held_by=1)
    assert outcomes == {"succeeded": 3}
    for run in (same, other):
        (line,) = [line for line in run.log_lines("warned") if "Galera" in line["message"]]
        assert "server main is a node of a Galera cluster" in line["message"]
        assert line["cronrunner"]["subject"] == "server_lock"
