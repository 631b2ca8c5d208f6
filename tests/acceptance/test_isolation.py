"""300 tenants on one MariaDB, of which six are broken in six ways: the night of all the others."""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.acceptance.fleet import Finished, Fleet
from tests.acceptance.watching import counting_connections, transactions_left
from tests.servers import LogEntry, MariaDB

pytestmark = pytest.mark.xdist_group("isolation")

TENANTS = 300
LIMIT = 8
PREFIX = "night_"
USER = "night_cron"

#: Tenant -> what is wrong with it, or what its job does.
BAD = {
    "night_020": "gone",
    "no_grants_120": "no_grants",
    "night_121": "no_table",
    "night_122": "exit",
    "night_190": "base_exception",
    "night_280": "killed",
}
RUDE = {"night_030": "own_engine", "night_130": "session"}

JOBS = """
    import os
    from contextlib import closing

    import pymysql
    from sqlalchemy import create_engine

    KEPT = []

    class Sabotage(BaseException):
        pass

    def administrator():
        return closing(pymysql.connect(
            host="127.0.0.1", port=int(os.environ["PORT"]), user="root",
            password=os.environ["ADMIN_PASSWORD"], autocommit=True, ssl_disabled=True,
        ))

    def drop_one(ctx):
        with administrator() as admin:
            admin.cursor().execute("DROP DATABASE IF EXISTS night_020")

    def killed(ctx):
        number = ctx.connection.execute(text("SELECT CONNECTION_ID()")).scalar_one()
        with administrator() as admin:
            admin.cursor().execute(f"KILL {number}")
        ctx.connection.execute(text("UPDATE items SET done = 1"))

    def own_engine(ctx):
        engine = create_engine(os.environ["GUEST_URL"] + "/" + ctx.tenant.database)
        connection = engine.connect()
        connection.execute(text("UPDATE items SET done = 1"))
        KEPT.append((engine, connection))

    def session(ctx):
        ctx.connection.execute(text("SET sql_mode = ''"))
        ctx.connection.execute(text("SET @mine = 'left behind'"))

    @job(prepare=drop_one)
    def count(ctx):
        match ctx.tenant.labels["does"]:
            case "exit":
                raise SystemExit(3)
            case "base_exception":
                raise Sabotage("of one tenant")
            case "killed":
                killed(ctx)
            case "own_engine":
                own_engine(ctx)
            case "session":
                session(ctx)
        return {"items": ctx.connection.execute(text("SELECT COUNT(*) FROM items")).scalar_one()}

    @job
    def look(ctx):
        row = ctx.connection.execute(
            text("SELECT @@sql_mode <> @@global.sql_mode, @mine IS NOT NULL")
        ).one()
        return {"sql_mode": int(row[0]), "variable": int(row[1])}
"""


@dataclass(frozen=True)
class Night:
    """One run over all 300, and everything that was observed of it."""

    fleet: Fleet
    server: MariaDB
    run: Finished
    #: The general log of the run's own connections.
    log: list[LogEntry]
    #: Connections of the run's user, counted many times while it ran.
    connections: list[int]
    #: Transactions that stay at the server when the run has ended.
    open_transactions: list[tuple[object, ...]]

    @property
    def name(self) -> str:
        name: str = self.run.document["run"]
        return name


@pytest.fixture(scope="module", params=["fresh", "reset"])
def night(
    request: pytest.FixtureRequest, mariadb: MariaDB, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Night]:
    names = [_name(number) for number in range(TENANTS)]
    mariadb.create_databases(
        names,
        "CREATE TABLE items (id INT PRIMARY KEY, done INT NOT NULL DEFAULT 0)",
        "INSERT INTO items (id) VALUES (1), (2), (3)",
    )
    mariadb.execute("DROP TABLE items", database="night_121")
    mariadb.execute("CREATE DATABASE night_registry")
    mariadb.execute(
        "CREATE TABLE tenants (name VARCHAR(64), db VARCHAR(64), labels VARCHAR(200))",
        database="night_registry",
    )
    does = defaultdict(lambda: "nothing", {**BAD, **RUDE})
    rows = ", ".join(f"('{name}', '{name}', 'does={does[name]}')" for name in names)
    mariadb.execute(f"INSERT INTO tenants VALUES {rows}", database="night_registry")
    mariadb.create_user(USER, "pw-night", on=r"`night\_%`.*")
    mariadb.create_user("night_guest", "pw-guest", on=r"`night\_%`.*")
    fleet = Fleet(
        tmp_path_factory.mktemp("night"),
        {
            "servers": {
                "main": {
                    "url": mariadb.url(USER, "pw-night"),
                    "max_connections": LIMIT,
                    "connections": request.param,
                    "discover": {
                        "query": "SELECT name, db AS `database`, labels FROM night_registry.tenants"
                    },
                }
            }
        },
        {"nightly": JOBS},
    )
    since = mariadb.log_position()
    with counting_connections(mariadb, USER) as connections:
        run = fleet.run("--json", env=_environment(mariadb))
    transactions = transactions_left(mariadb)
    log = mariadb.general_log(since=since, user=USER)
    yield Night(fleet, mariadb, run, log, connections, transactions)
    for prefix in (PREFIX, "no_grants_"):
        mariadb.drop_databases(prefix)


def _name(number: int) -> str:
    return "no_grants_120" if number == 120 else f"{PREFIX}{number:03}"


def _environment(server: MariaDB) -> dict[str, str]:
    return {
        "PORT": str(server.port),
        "ADMIN_PASSWORD": server.password,
        "GUEST_URL": server.url("night_guest", "pw-guest"),
    }


def test_the_other_294_tenants_succeed(night: Night) -> None:
    succeeded = {
        tenant
        for (job, tenant), outcome in night.run.outcomes.items()
        if job == "nightly.count" and outcome == "succeeded"
    }

    assert night.run.code == 1, night.run.stderr[-3000:]
    assert night.run.document["tenants"] == TENANTS
    assert succeeded == {_name(number) for number in range(TENANTS)} - BAD.keys()
    assert len(succeeded) == 294


def test_what_succeeded_has_the_result_of_a_clean_run(night: Night) -> None:
    counters = {
        (row["job"], str(row["counters"]))
        for row in night.run.document["executions"]
        if row["outcome"] == "succeeded" and row["tenant"]
    }

    assert counters == {
        ("nightly.count", "{'items': 3}"),
        ("nightly.look", "{'sql_mode': 0, 'variable': 0}"),
    }


@pytest.mark.parametrize(
    ("tenant", "outcome", "error"),
    [
        ("night_020", "tenant_gone", "OperationalError 1049: Unknown database 'night_020'"),
        ("no_grants_120", "failed", "OperationalError 1044: Access denied for user"),
        ("night_121", "failed", "ProgrammingError 1146: Table 'night_121.items' doesn't exist"),
        ("night_122", "failed", "SystemExit: 3"),
        ("night_190", "failed", "Sabotage: of one tenant"),
        ("night_280", "failed", "OperationalError 2013: Lost connection to MySQL server"),
    ],
)
def test_each_bad_tenant_has_an_outcome_and_cause_of_its_own(
    night: Night, tenant: str, outcome: str, error: str
) -> None:
    shown = night.fleet.run("show", night.name, "--tenant", tenant, "--json")
    execution = shown.execution("nightly.count", tenant)

    assert execution["outcome"] == outcome
    assert execution["error"].startswith(error)


def test_the_six_causes_are_told_apart(night: Night) -> None:
    shown = night.fleet.run("show", night.name, "--json").document

    of_count = {
        name: cause["cause"] for cause in shown["causes"] for name in cause["tenant_names"] if name
    }
    assert of_count.keys() == BAD.keys()
    assert len(set(of_count.values())) == 6
    for name, cause in of_count.items():
        assert name not in cause

    page = night.fleet.run("show", night.name).stdout
    assert "6 causes" in page
    assert all(name in page for name in BAD)


def test_the_next_job_of_a_tenant_pays_only_for_what_is_wrong_with_the_tenant(
    night: Night,
) -> None:
    outcomes = {name: night.run.outcomes["nightly.look", name] for name in BAD}

    assert outcomes == {
        "night_020": "tenant_gone",
        "no_grants_120": "failed",
        "night_121": "succeeded",
        "night_122": "succeeded",
        "night_190": "succeeded",
        "night_280": "succeeded",
    }


def test_the_server_never_has_more_connections_of_a_run_than_its_limit(night: Night) -> None:
    assert len(night.connections) > 10
    assert 1 < max(night.connections) <= LIMIT


def test_no_transaction_is_left_at_the_server(night: Night) -> None:
    assert night.open_transactions == []


def test_each_connection_touches_one_database_only_until_it_is_told_the_next(
    night: Night,
) -> None:
    touched = [set().union(*map(_databases, turn)) for turn in _turns(night.log)]
    databases = [names for names in touched if names != {"night_registry"}]

    assert len(databases) >= TENANTS - 2
    assert [names for names in databases if len(names) > 1] == []


def _turns(log: list[LogEntry]) -> Iterator[list[LogEntry]]:
    """What each connection did on one database, and then on the next."""
    threads: dict[int, list[LogEntry]] = defaultdict(list)
    for entry in log:
        threads[entry.thread].append(entry)
    for entries in threads.values():
        turn: list[LogEntry] = []
        for entry in entries:
            if entry.command == "Init DB" and entry.argument not in _databases(turn[0]):
                yield turn
                turn = []
            turn.append(entry)
        yield turn


def _databases(entry: LogEntry) -> set[str]:
    """The databases that a line of the general log names."""
    return set(re.findall(r"night_(?:\d{3}|registry)|no_grants_\d+", entry.argument))


def test_one_tenant_alone_gets_the_statements_that_it_gets_in_the_fleet(night: Night) -> None:
    since = night.server.log_position()
    alone = night.fleet.run("--tenant=night_150", "--json", env=_environment(night.server))
    log = night.server.general_log(since=since, user=USER)

    assert alone.code == 0, alone.stderr
    assert [row["tenant"] for row in alone.document["executions"] if row["tenant"]] == [
        "night_150",
        "night_150",
    ]
    statements = _statements(log, "night_150")
    assert len(statements) > 4
    assert statements == _statements(night.log, "night_150")


def _statements(log: list[LogEntry], database: str) -> list[tuple[str, str]]:
    """What was sent on a database, once the connection was there."""
    (turn,) = (each for each in _turns(log) if database in _databases(each[0]))
    # The server writes Quit a moment after the client is gone.
    return [(e.command, e.argument) for e in turn[1:] if e.command != "Quit"]


def test_an_unknown_tenant_is_refused_with_the_nearest_names(night: Night) -> None:
    refused = night.fleet.run("--tenant=night_0007", "--json", env=_environment(night.server))

    assert refused.code == 2
    assert refused.document["exit_code"] == 2
    assert "no tenant 'night_0007'; the nearest are night_007" in refused.stderr
    assert refused.document["executions"] == []
