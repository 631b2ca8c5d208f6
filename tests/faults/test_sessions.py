"""Whatever a visit does to its session: the next one finds what a new connection finds."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from random import Random
from typing import Any

import pymysql
import pytest
from pymysql.constants import SERVER_STATUS
from sqlalchemy import Connection, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from cronrunner.databases import Endpoint
from cronrunner.engines import Engines, TenantEngine
from cronrunner.model import Tenant
from tests.faults.conftest import Tally
from tests.servers import MariaDB

FAULT = "misbehaviour in sessions that are used again"
TENANTS = 7

#: What differs from connection to connection, or from moment to moment, by nature.
BY_NATURE = {
    "error_count", "gtid_seq_no", "statement_id", "identity", "insert_id", "last_gtid", "last_insert_id",
    "pseudo_thread_id", "rand_seed1", "rand_seed2", "timestamp", "warning_count",
}  # fmt: skip

STATEMENTS = (
    "SET @mine = 1",
    "SET sql_mode = ''",
    "SET time_zone = '-05:00'",
    "SET NAMES latin1",
    "SET character_set_results = NULL",
    "SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "SET autocommit = 1",
    "SET max_statement_time = 0",
    "SET foreign_key_checks = 0, unique_checks = 0, group_concat_max_len = 5",
    "SET wait_timeout = 1000, lock_wait_timeout = 1, sql_select_limit = 1",
    "SET profiling = 1",
    "CREATE TEMPORARY TABLE rows_ (id INT)",
    "CREATE TEMPORARY TABLE IF NOT EXISTS of_mine AS SELECT 1 AS id",
    "INSERT INTO rows_ VALUES (7)",
    "SELECT LAST_INSERT_ID(99)",
    "SELECT GET_LOCK('misbehaviour', 0)",
    "LOCK TABLES rows_ WRITE",
    "HANDLER rows_ OPEN",
    "PREPARE mine FROM 'SELECT 1'",
    "SET ROLE misbehaving",
    "USE information_schema",
    "START TRANSACTION",
    "XA START 'mine'",
    "SELECT 1 / 0",
    "SIGNAL SQLSTATE '01000'",
    "SELECT * FROM nowhere",
    "DO SLEEP(0.001)",
)


def half_read(connection: Connection) -> object:
    streaming = connection.execution_options(stream_results=True)
    return streaming.execute(text("SELECT column_name FROM information_schema.columns")).fetchone()


def keep_a_cursor(connection: Connection) -> object:
    return connection.connection.cursor()


def change_the_driver(connection: Connection) -> object:
    session: Any = connection.connection.dbapi_connection
    session.encoding, session.autocommit_mode, session.sql_mode = "latin1", True, "ANSI"
    session.encoders.clear()
    session.decoders.clear()
    return session


def allow_many_statements(connection: Connection) -> object:
    session: Any = connection.connection.dbapi_connection
    session._execute_command(0x1B, b"\0\0")
    return session._read_packet()


def kill_itself(connection: Connection) -> object:
    return connection.execute(text("KILL CONNECTION_ID()"))


def prepare_a_distributed_transaction(connection: Connection) -> object:
    for statement in ("XA START 'far'", "INSERT INTO rows_ VALUES (8)", "XA END 'far'",
                      "XA PREPARE 'far'"):  # fmt: skip
        connection.execute(text(statement))
    return None


def break_off(connection: Connection) -> object:
    session: Any = connection.connection.dbapi_connection
    session._sock.close()
    return session


ACTS: tuple[Callable[[Connection], object], ...] = (
    *((lambda connection, sql=sql: connection.execute(text(sql))) for sql in STATEMENTS),
    half_read,
    keep_a_cursor,
    change_the_driver,
    allow_many_statements,
    kill_itself,
    prepare_a_distributed_transaction,
    break_off,
)


@pytest.fixture
def server(mariadb: MariaDB, prefix: str) -> Iterator[MariaDB]:
    names = [f"{prefix}{number}" for number in range(TENANTS)]
    mariadb.create_databases(names, "CREATE TABLE rows_ (id INT)", "INSERT INTO rows_ VALUES (1)")
    mariadb.execute("CREATE ROLE IF NOT EXISTS misbehaving")
    user, _, host = mariadb.execute("SELECT CURRENT_USER()")[0][0].rpartition("@")
    mariadb.execute(f"GRANT misbehaving TO '{user}'@'{host}'")
    yield mariadb
    forget_prepared(mariadb)
    mariadb.execute("DROP ROLE misbehaving")
    mariadb.drop_databases(prefix)


def forget_prepared(server: MariaDB) -> None:
    """End what would lock its table for good."""
    with suppress(pymysql.Error):
        server.execute("XA ROLLBACK 'far'")


@pytest.mark.timeout(600)
def test_the_next_visit_finds_what_a_new_connection_finds(
    server: MariaDB, prefix: str, *, long: bool, tally: Tally
) -> None:
    visits, random = 10_000 if long else 200, Random(5)
    url = make_url(server.url())
    reused = Endpoint(name="main", url=url, reuse=True)
    new = Engines({"main": Endpoint(name="main", url=url)})
    fallbacks: list[str] = []
    engines = Engines({"main": reused}, on_fallback=lambda _, why: fallbacks.append(why))
    expected = {number: looked_at(new, prefix, number) for number in range(TENANTS)}
    numbers: set[int] = set()
    kept: list[object] = []

    for _ in range(visits):
        tenant = random.randrange(TENANTS)
        visit = opened(engines, prefix, tenant)
        assert facts(visit, numbers) == expected[tenant]
        clean = misbehave(visit, random, kept)
        visit.close(clean=clean)
        if not clean:
            forget_prepared(server)
        for each in kept:
            is_dead(each)
        kept.clear()

    engines.close()
    new.close()
    assert fallbacks == []
    # Most visits do something after which their session may be used again.
    assert len(numbers) < visits * 0.9
    tally.add(FAULT, visits=visits, connections=len(numbers), different=0)


def opened(engines: Engines, prefix: str, tenant: int) -> TenantEngine:
    name = f"{prefix}{tenant}"
    visit = engines.visit(Tenant(name=name, server="main", database=name))
    visit.limit_statements(30)
    visit.connect()
    return visit


def looked_at(engines: Engines, prefix: str, tenant: int) -> dict[str, object]:
    visit = opened(engines, prefix, tenant)
    seen = facts(visit, set())
    visit.close()
    return seen


def facts(visit: TenantEngine, numbers: set[int]) -> dict[str, object]:
    """All that a job can see of its session."""
    with visit.engine.connect() as connection:
        session: Any = connection.connection.dbapi_connection
        in_transaction = session.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS
        rows = connection.execute(text("SHOW SESSION VARIABLES")).all()
        seen: dict[str, object] = {name: value for name, value in rows if name not in BY_NATURE}
        row = connection.execute(text(
            "SELECT DATABASE() AS db, CURRENT_ROLE() AS role, @mine AS mine,"
            " LAST_INSERT_ID() AS last_id, IS_USED_LOCK('misbehaviour') AS named_lock,"
            " @@character_set_client AS names"
        )).one()  # fmt: skip
        seen |= row._mapping
        seen["in_transaction"] = in_transaction
        seen["rows"] = connection.execute(text("SELECT COUNT(*) FROM rows_")).scalar_one() >= 1
        seen["temporary"] = works(connection, "SELECT 1 FROM of_mine")
        seen["prepared"] = works(connection, "EXECUTE mine")
        seen["many_statements"] = works(connection, "SELECT 1; SELECT 2")
        seen["text"] = connection.execute(text("SELECT :sent"), {"sent": "Größe 日本"}).scalar_one()
        numbers.add(connection.execute(text("SELECT CONNECTION_ID()")).scalar_one())
        connection.rollback()
    return seen


def works(connection: Connection, statement: str) -> bool:
    try:
        connection.execute(text(statement))
    except SQLAlchemyError:
        return False
    return True


def misbehave(visit: TenantEngine, random: Random, kept: list[object]) -> bool:
    """Do some of it, in one job; tell whether it ended well."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with visit.engine.connect() as connection:
                for act in random.choices(ACTS, k=random.randint(1, 4)):
                    kept.append(act(connection))
                visit.foresee(more=False)
                connection.commit()
        except Exception:  # noqa: BLE001 - whatever the driver makes of it
            return False
    return True


def is_dead(kept: object) -> None:
    """What was kept reads nothing of the next tenant."""
    if isinstance(kept, pymysql.cursors.Cursor):
        with pytest.raises((pymysql.Error, AttributeError)):
            kept.execute("SELECT 1")
    elif isinstance(kept, pymysql.connections.Connection):
        with pytest.raises((pymysql.Error, AttributeError)):
            kept.query("SELECT 1")
