"""Whatever a job leaves behind changes nothing for the next one, on the same tenant or another."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.acceptance.fleet import Finished, Fleet
from tests.acceptance.watching import counting_connections, transactions_left
from tests.servers import MariaDB, quote

pytestmark = pytest.mark.xdist_group("left_behind")

LIMIT = 3
PREFIX = "left_"
USER = "left_cron"
CLEAN = "clean"

#: What the first job of a tenant does -> how it ends.
RUDE = {
    "sql_mode": "succeeded",
    "user_variable": "succeeded",
    "autocommit": "succeeded",
    "isolation": "succeeded",
    "foreign_keys": "succeeded",
    "names": "succeeded",
    "temporary_table": "succeeded",
    "named_lock": "succeeded",
    "locked_tables": "succeeded",
    "another_database": "succeeded",
    "own_engine": "succeeded",
    "open_transaction": "succeeded",
    "leaked_connection": "succeeded",
    "disposed_engine": "succeeded",
    "engine_options": "succeeded",
    "listener": "succeeded",
    "kept_engine": "succeeded",
    "half_read_result": "succeeded",
    "printed_text": "succeeded",
    "raising_listener": "failed",
    "closed_connection": "failed",
    "closed_driver_connection": "failed",
}

JOBS = """
    import os
    import subprocess

    from sqlalchemy import create_engine, event

    KEPT = []

    def statement(sql):
        return lambda ctx: ctx.connection.execute(text(sql))

    def kept(make):
        return lambda ctx: KEPT.append(make(ctx))

    def own_engine(ctx):
        connection = create_engine(os.environ["GUEST_URL"] + "/" + ctx.tenant.database).connect()
        connection.execute(text("UPDATE guests SET id = id + 10"))
        return connection

    def open_transaction(ctx):
        connection = ctx.engine.connect()
        connection.execute(text("DELETE FROM items"))
        return connection

    def half_read(ctx):
        streaming = ctx.connection.execution_options(stream_results=True)
        streaming.execute(text("SELECT id FROM items")).fetchone()

    def print_text(ctx):
        print("printed by a job")
        subprocess.run(["echo", "printed by a process of a job"], check=True)

    def listener(ctx):
        event.listen(ctx.engine, "before_cursor_execute", refuse)
        event.listen(ctx.engine.pool, "checkout", refuse)

    def refuse(*_):
        raise SystemExit("a listener of another job")

    def raising_listener(ctx):
        event.listen(ctx.engine.pool, "checkin", refuse)
        ctx.connection.execute(text("SELECT 1"))

    def close(ctx):
        ctx.connection.execute(text("DELETE FROM items"))
        ctx.connection.close()

    def close_driver(ctx):
        ctx.connection.execute(text("DELETE FROM items"))
        ctx.connection.connection.driver_connection.close()

    DOES = {
        "clean": statement("SELECT 1"),
        "sql_mode": statement("SET sql_mode = ''"),
        "user_variable": statement("SET @mine = 1"),
        "autocommit": statement("SET autocommit = 1"),
        "isolation": statement("SET SESSION TRANSACTION ISOLATION LEVEL READ UNCOMMITTED"),
        "foreign_keys": statement("SET foreign_key_checks = 0"),
        "names": statement("SET NAMES latin1"),
        "temporary_table": statement("CREATE TEMPORARY TABLE items (id INT)"),
        "named_lock": statement("DO GET_LOCK(CONCAT('left ', DATABASE()), 0)"),
        "locked_tables": statement("LOCK TABLES guests WRITE"),
        "another_database": statement("USE left_clean"),
        "own_engine": kept(own_engine),
        "open_transaction": kept(open_transaction),
        "leaked_connection": kept(lambda ctx: ctx.engine.connect()),
        "disposed_engine": lambda ctx: ctx.engine.dispose(),
        "engine_options": lambda ctx: ctx.engine.update_execution_options(
            isolation_level="AUTOCOMMIT"
        ),
        "listener": listener,
        "kept_engine": kept(lambda ctx: ctx.engine),
        "half_read_result": half_read,
        "printed_text": print_text,
        "raising_listener": raising_listener,
        "closed_connection": close,
        "closed_driver_connection": close_driver,
    }

    @job
    def leave(ctx):
        DOES[ctx.tenant.name](ctx)

    @job
    def look(ctx):
        row = ctx.connection.execute(text(
            "SELECT @@sql_mode = @@global.sql_mode AS sql_mode, @mine IS NULL AS user_variable,"
            " @@autocommit AS autocommit,"
            " @@foreign_key_checks AS foreign_keys, @@character_set_client = 'utf8mb4' AS names,"
            " (SELECT COUNT(*) FROM items) AS items, (SELECT COUNT(*) FROM guests) AS guests,"
            " IS_USED_LOCK(CONCAT('left ', DATABASE())) IS NULL AS named_lock,"
            " DATABASE() = CONCAT('left_', :tenant) AS same_database"
        ), {"tenant": ctx.tenant.name}).one()
        # MariaDB and MySQL do not agree on its name.
        ((_, isolation),) = ctx.connection.execute(text(
            "SHOW VARIABLES WHERE variable_name IN ('tx_isolation', 'transaction_isolation')"
        )).all()
        seen = {name: int(value) for name, value in row._mapping.items()}
        return seen | {"isolation": int(isolation == "REPEATABLE-READ")}

    @job
    def write(ctx):
        ctx.connection.execute(text("INSERT INTO items VALUES (4)"))

    @job
    def roll_back(ctx):
        ctx.connection.execute(text("INSERT INTO items VALUES (5)"))
        raise RuntimeError("and so nothing of it stays")

    @job
    def use_a_kept_engine(ctx):
        for engine in KEPT:
            if hasattr(engine, "pool") and ctx.tenant.name == "kept_engine":
                engine.connect()
"""


@dataclass(frozen=True)
class Observed:
    run: Finished
    connections: list[int]
    open_transactions: list[tuple[Any, ...]]
    #: Tenant -> the ids in its table after the run.
    items: dict[str, list[int]]


@pytest.fixture(scope="module", params=["fresh", "reset"])
def observed(
    request: pytest.FixtureRequest, mariadb: MariaDB, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Observed]:
    names = [CLEAN, *RUDE]
    mariadb.create_databases(
        [PREFIX + name for name in names],
        "CREATE TABLE items (id INT PRIMARY KEY)",
        "CREATE TABLE guests (id INT PRIMARY KEY)",
        "INSERT INTO items VALUES (1), (2), (3)",
        "INSERT INTO guests VALUES (1)",
    )
    for user in (USER, "left_guest"):
        mariadb.create_user(user, "pw", on=r"`left\_%`.*")
    listed = [{"name": name, "database": PREFIX + name} for name in names]
    server = {
        "url": mariadb.url(USER, "pw"),
        "max_connections": LIMIT,
        "connections": request.param,
        "discover": {"list": listed},
    }
    fleet = Fleet(tmp_path_factory.mktemp("left"), {"servers": {"main": server}}, {"rude": JOBS})
    with counting_connections(mariadb, USER) as counts:
        run = fleet.run("--json", env={"GUEST_URL": mariadb.url("left_guest", "pw")})
    transactions = transactions_left(mariadb)
    items = {
        name: [id_ for (id_,) in mariadb.execute(f"SELECT id FROM {quote(PREFIX + name)}.items")]
        for name in names
    }
    yield Observed(run, counts, transactions, items)
    mariadb.drop_databases(PREFIX)


@pytest.mark.parametrize("tenant", RUDE)
def test_the_job_itself_ends_as_it_should(observed: Observed, tenant: str) -> None:
    assert observed.run.outcomes["rude.leave", tenant] == RUDE[tenant]


@pytest.mark.parametrize("tenant", RUDE)
def test_the_next_job_of_the_tenant_sees_what_it_sees_on_a_clean_tenant(
    observed: Observed, tenant: str
) -> None:
    clean, found = (observed.run.execution("rude.look", name) for name in (CLEAN, tenant))

    assert found["error"] is None
    assert found["counters"] == clean["counters"]


@pytest.mark.parametrize("tenant", [CLEAN, *RUDE])
def test_later_jobs_commit_and_roll_back_in_their_own_database(
    observed: Observed, tenant: str
) -> None:
    assert observed.run.outcomes["rude.write", tenant] == "succeeded"
    assert observed.run.outcomes["rude.roll_back", tenant] == "failed"
    assert observed.items[tenant] == [1, 2, 3, 4]


def test_a_job_that_closes_its_connection_is_told_that_its_work_is_lost(
    observed: Observed,
) -> None:
    error = observed.run.execution("rude.leave", "closed_connection")["error"]

    assert error.startswith("ConnectionClosedError: The job has closed ctx.connection")


def test_a_kept_engine_opens_nothing_more(observed: Observed) -> None:
    error = observed.run.execution("rude.use_a_kept_engine", "kept_engine")["error"]

    assert error.startswith("VisitOverError")


def test_what_jobs_print_does_not_mix_with_results(observed: Observed) -> None:
    assert "printed by" not in observed.run.stdout
    assert "printed by a job" in observed.run.stderr
    assert "printed by a process of a job" in observed.run.stderr


def test_no_transaction_is_left_at_the_server(observed: Observed) -> None:
    assert observed.open_transactions == []


def test_the_limit_of_connections_holds_whatever_jobs_keep(observed: Observed) -> None:
    assert 0 < max(observed.connections) <= LIMIT


def test_the_clean_tenant_is_what_a_new_connection_is(observed: Observed) -> None:
    assert observed.run.execution("rude.look", CLEAN)["counters"] == {
        "sql_mode": 1, "user_variable": 1, "autocommit": 0, "isolation": 1, "foreign_keys": 1,
        "names": 1, "items": 3, "guests": 1, "named_lock": 1, "same_database": 1,
    }  # fmt: skip
