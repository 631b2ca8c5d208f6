"""A deadline ends its own statement at the server, in time, and never another one."""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.fleet import Finished, Fleet
from tests.acceptance.joins import ENDLESS, numbers
from tests.acceptance.watching import counting_connections, watching_statements
from tests.faults.conftest import Tally
from tests.servers import MariaDB

pytestmark = pytest.mark.xdist_group("fault_deadlines")

LIMIT = 9
NEIGHBOURS = 200
USER = "fault_late"
#: What a job may take beyond its timeout of 2 s, its run's start not counted.
MARGIN = 1.0
EDGE_SECONDS = 0.05
EDGES = "executions ending at their deadline"

JOBS = (
    f"""
    ENDLESS = "{ENDLESS}"
"""
    """
    import threading
    import time
    from pathlib import Path

    def note(ctx):
        Path(f"thread-{ctx.tenant.name}").write_text(str(threading.get_ident()))

    @job(name="a.join", timeout="2s", tenants="*_join")
    def join(ctx):
        note(ctx)
        ctx.connection.execute(text(ENDLESS)).scalar()

    @job(name="a.blocked", timeout="2s", tenants="*_blocked")
    def blocked(ctx):
        note(ctx)
        ctx.connection.execute(text("UPDATE items SET done = 1"))

    @job(name="a.returns", timeout="2s", tenants="*_returns")
    def returns(ctx):
        # SLEEP ends as if nothing had happened when it is killed.
        note(ctx)
        ctx.connection.execute(text("INSERT INTO items VALUES (7, 7)"))
        ctx.connection.execute(text("SELECT SLEEP(30)"))
        return {"slept": 1}

    @job(name="a.loop", timeout="2s", tenants="*_loop")
    def loop(ctx):
        while True:
            ctx.check()
            time.sleep(0.05)

    @job(name="a.neighbour", timeout="2s", tenants="*_n*")
    def neighbour(ctx):
        # Long enough for the run to be at work when the deadlines are over.
        time.sleep(0.07)
        return {"rows": ctx.connection.execute(text("SELECT COUNT(*) FROM items")).scalar_one()}

    @job(name="b.count")
    def count(ctx):
        rows = ctx.connection.execute(text("SELECT COUNT(*) FROM items")).scalar_one()
        return {"rows": rows, "thread": threading.get_ident()}
"""
)

LATE = {
    "a.join": "fault_late_join",
    "a.blocked": "fault_late_blocked",
    "a.returns": "fault_late_returns",
}


@dataclass(frozen=True)
class Night:
    """One run over 204 tenants of which four have a job that does not end."""

    run: Finished
    server: MariaDB
    folder: Path
    #: Tenant -> when its statements were in the process list.
    seen: dict[str, list[float]]
    connections: list[int]
    left: list[dict]


@pytest.fixture(scope="module")
def night(mariadb: MariaDB, tmp_path_factory) -> Iterator[Night]:
    neighbours = [f"fault_late_n{number:03}" for number in range(NEIGHBOURS)]
    mariadb.create_databases(
        [*LATE.values(), "fault_late_loop", *neighbours],
        "CREATE TABLE items (id INT, done INT)",
        "INSERT INTO items VALUES (1, 0)",
    )
    mariadb.create_user(USER, "pw", on=r"`fault\_late\_%`.*")
    config = {
        "servers": {
            "main": {
                "url": mariadb.url(USER, "pw"),
                "discover": {"databases": "fault_late_*"},
                "max_connections": LIMIT,
            }
        },
        "runner": {"grace": "2s"},
    }
    fleet = Fleet(tmp_path_factory.mktemp("late"), config, {"late": JOBS})
    with closing(mariadb.connect(database="fault_late_blocked")) as holder:
        holder.cursor().execute("BEGIN")
        holder.cursor().execute("UPDATE items SET done = 2")
        with (
            counting_connections(mariadb, USER) as connections,
            watching_statements(mariadb, USER) as seen,
        ):
            run = fleet.run("run", "--json")
        left = [row for row in mariadb.process_list() if row["user"] == USER]
    yield Night(run, mariadb, fleet.folder, seen, connections, left)
    mariadb.drop_databases("fault_late_")


@pytest.mark.parametrize("job", LATE)
def test_a_statement_is_timed_out_in_time_and_gone_from_the_process_list(
    night: Night, job: str
) -> None:
    execution = night.run.execution(job, LATE[job])

    assert execution["outcome"] == "timed_out"
    assert 2.0 <= execution["duration_seconds"] < 2.0 + MARGIN
    assert "timeout of 2s" in execution["error"]
    moments = night.seen[LATE[job]]
    assert 1.0 < moments[-1] - moments[0] < 4.0


def test_a_loop_that_checks_ends_itself(night: Night) -> None:
    execution = night.run.execution("a.loop", "fault_late_loop")

    assert execution["outcome"] == "timed_out"
    assert execution["duration_seconds"] < 2.0 + MARGIN


def test_nothing_of_it_is_left_on_the_server(night: Night) -> None:
    assert [row for row in night.left if row["command"] != "Sleep"] == []


def test_what_it_had_written_is_rolled_back(night: Night) -> None:
    sql = "SELECT COUNT(*) FROM fault_late_returns.items WHERE id = 7"

    assert night.server.execute(sql) == [(0,)]


def test_its_thread_does_the_work_of_other_tenants_afterwards(night: Night) -> None:
    for tenant in LATE.values():
        thread = int((night.folder / f"thread-{tenant}").read_text())
        others = [
            row["tenant"]
            for row in night.run.document["executions"]
            if row["job"] == "b.count" and row["counters"]["thread"] == thread
        ]
        assert set(others) - {tenant}, "the thread did nothing else"


def test_200_neighbours_and_the_rest_of_the_visit_are_unaffected(night: Night) -> None:
    rows = [r for r in night.run.document["executions"] if r["job"] in {"b.count", "a.neighbour"}]

    assert len(rows) == 2 * NEIGHBOURS + 4
    assert {(row["outcome"], row["counters"]["rows"]) for row in rows} == {("succeeded", 1)}
    assert night.run.code == 1


def test_the_server_never_has_more_connections_than_the_limit_while_statements_are_killed(
    night: Night, tally: Tally
) -> None:
    assert len(night.connections) > 20
    assert 2 < max(night.connections) <= LIMIT
    late = [night.run.execution(job, tenant) for job, tenant in LATE.items()]
    longest = max(row["duration_seconds"] for row in late)
    fault = "statements that do not end, timeout 2 s, among 200 neighbours"
    tally.add(fault, timed_out=len(late), neighbours_affected=0)
    tally.highest(fault, ms_at_most=round(longest * 1000))
    tally.highest(fault, **{f"connections_at_most_of_{LIMIT}": max(night.connections)})


#: Each edge computes until about its deadline; a kill that came late would hit what follows.
EDGE_JOBS = (
    f"""
    SHORT = "{numbers(250)} SELECT COUNT(*) FROM n a, n b"
"""
    """
    import random
    import time

    def edge(ctx, number):
        began = time.monotonic()
        over = began + 0.05
        time.sleep(over - 0.004 + random.uniform(-0.003, 0.003) - time.monotonic())
        error = 0
        try:
            ctx.connection.exec_driver_sql(
                f"{SHORT} /* edge {ctx.tenant.name} {number} */"
            ).scalar_one()
        except Exception as raised:
            error = raised.orig.args[0]
            raise
        finally:
            off = time.monotonic() - over
            with open("edges.log", "a") as log:
                log.write(f"b{number}.edge {ctx.tenant.name} {off:.6f} {error}\\n")

    def following(ctx, number):
        for _ in range(3):
            ctx.connection.exec_driver_sql(
                f"{SHORT} /* next {ctx.tenant.name} {number} */"
            ).scalar_one()

    def make(number):
        edged = job(name=f"b{number}.edge", timeout="50ms")(lambda ctx: edge(ctx, number))
        followed = job(name=f"b{number}.next", timeout="30s")(lambda ctx: following(ctx, number))
        return {f"edge{number}": edged, f"next{number}": followed}

    for number in range(4):
        globals().update(make(number))

    @job(name="a.next")
    def first(ctx):
        following(ctx, "a")
"""
)


@pytest.mark.timeout(900)
def test_no_statement_of_an_execution_that_has_time_left_is_killed(
    mariadb: MariaDB, prefix: str, tmp_path: Path, long: bool, tally: Tally
) -> None:
    """As the jobs saw it, as the ledger has it, and as the server's general log tells."""
    wanted, tenants = (2000, 250) if long else (100, 50)
    mariadb.create_databases([f"{prefix}edge"])
    mariadb.create_user(USER + "_edge", "pw")
    query = f"{numbers(tenants)} SELECT CONCAT('e', i) AS name, '{prefix}edge' AS `database` FROM n"
    main = {
        "url": mariadb.url(USER + "_edge", "pw"),
        "discover": {"query": query},
        "max_connections": LIMIT,
    }
    config = {"servers": {"main": main}, "runner": {"grace": "5s", "quarantine": {"after": 0}}}
    fleet = Fleet(tmp_path, config, {"edges": EDGE_JOBS})
    close = killed = 0
    for _ in range(20):
        edges, kills = run_edges(fleet, mariadb)
        killed += kills
        close += sum(abs(off) <= 0.005 for off, _ in edges)
        tally.add(
            EDGES,
            executions=len(edges),
            of_them_within_5_ms=sum(abs(off) <= 0.005 for off, _ in edges),
            kills=kills,
            kills_of_what_had_time_left=0,
        )
        if close >= wanted:
            break
    assert close >= wanted
    assert killed >= wanted // 20, "too few were still at work at their deadline"


def run_edges(fleet: Fleet, server: MariaDB) -> tuple[list[tuple[float, int]], int]:
    """Run all edges once; return how far off each ended and with which error, and the kills."""
    seen = fleet.folder / "edges.log"
    seen.unlink(missing_ok=True)
    since = server.log_position()
    run = fleet.run("run", "--json")
    noted = [line.split() for line in seen.read_text().splitlines()]
    timed_out = {
        (row["job"], row["tenant"]): row["duration_seconds"]
        for row in run.document["executions"]
        if row["outcome"] == "timed_out"
    }

    others = Counter(o for key, o in run.outcomes.items() if key not in timed_out)
    assert set(others) == {"succeeded"}, run.document["causes"]
    assert all(job.endswith(".edge") for job, _ in timed_out)
    # No session is opened within an edge: what it took is what the watchdog has measured.
    assert min(timed_out.values(), default=EDGE_SECONDS) >= EDGE_SECONDS
    hit = {(job, tenant) for job, tenant, _, error in noted if error != "0"}
    assert hit <= timed_out.keys(), "a statement was killed although its execution had time left"
    killed = list(kills(server, since))
    assert set(killed) <= timed_out.keys(), "a kill was sent for what had time left"
    assert hit <= set(killed)
    return [(float(off), int(error)) for _, _, off, error in noted], len(killed)


def kills(server: MariaDB, since: int) -> Iterator[tuple[str, str]]:
    """Tell whose statement a session was at when a kill for that session was sent.

    The process list shows a statement a moment before the log has it: a session that was only made
    ready by then is at the statement that follows.
    """
    last: dict[int, str] = {}
    asked: dict[int, int] = {}
    coming: set[int] = set()
    for entry in server.general_log(since=since, user=USER + "_edge"):
        if found := re.search(r"processlist WHERE id = (\d+)", entry.argument):
            asked[entry.thread] = int(found[1])
        elif entry.argument.startswith("KILL "):
            session = asked[entry.thread]
            if last[session].startswith("SET NAMES "):
                coming.add(session)
            else:
                yield tagged(last[session])
        elif entry.command == "Query":
            last[entry.thread] = entry.argument
            if entry.thread in coming:
                coming.remove(entry.thread)
                yield tagged(entry.argument)
    assert not coming, "a kill was sent for a session that had nothing to do"


def tagged(statement: str) -> tuple[str, str]:
    """Return (job, tenant) as a statement of theirs names them."""
    found = re.search(r"/\* (edge|next) (\S+) (\S+) \*/", statement)
    assert found is not None, statement
    return f"b{found[3]}.{found[1]}", found[2]
