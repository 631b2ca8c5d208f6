"""What every kind of database must do, and what an engine over it must be to a job."""

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymysql
import pytest
from sqlalchemy import (
    Column,
    Engine,
    Integer,
    MetaData,
    NullPool,
    String,
    Table,
    event,
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from cronrunner.databases import DatabaseKind, Endpoint, ServerParts, describe, facts, kind_of
from cronrunner.databases.base import mask_quoted, tenant_dialect
from cronrunner.engines import Engines, TenantEngine
from cronrunner.errors import VisitOverError
from cronrunner.model import Tenant
from tests.servers import MariaDB, quote

PEOPLE = "CREATE TABLE people (id INTEGER PRIMARY KEY, email VARCHAR(60) NOT NULL UNIQUE)"
TENANTS = ("one", "two")


class Base(DeclarativeBase):
    pass


class Person(Base):
    __tablename__ = "people"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]


@dataclass(frozen=True)
class World:
    """Two tenants of a kind, each with the same empty table."""

    endpoint: Endpoint
    database: Callable[[str], str]
    drop: Callable[[str], Any]

    @property
    def kind(self) -> DatabaseKind:
        return kind_of(self.endpoint.url.drivername)

    def prepared(self) -> ServerParts:
        return self.kind.prepare(self.endpoint)

    def visit(self, engines: Engines, name: str) -> TenantEngine:
        return engines.visit(Tenant(name=name, server="main", database=self.database(name)))


@pytest.fixture(params=["mysql", "sqlite"])
def world(request: pytest.FixtureRequest, prefix: str, tmp_path: Path) -> World:
    make: World = request.getfixturevalue(f"{request.param}_world")
    return make


@pytest.fixture
def mysql_world(mariadb: MariaDB, prefix: str) -> Iterator[World]:
    mariadb.create_databases([prefix + name for name in TENANTS], PEOPLE)
    yield World(
        Endpoint(name="main", url=make_url(mariadb.url()), connect_timeout_seconds=5),
        lambda name: prefix + name,
        lambda name: mariadb.execute(f"DROP DATABASE {quote(prefix + name)}"),
    )
    mariadb.drop_databases(prefix)


@pytest.fixture
def sqlite_world(tmp_path: Path) -> World:
    for name in TENANTS:
        file = sqlite3.connect(tmp_path / f"{name}.db")
        file.execute(PEOPLE)
        file.close()
    return World(
        Endpoint(name="main", url=make_url("sqlite://"), folder=tmp_path),
        lambda name: f"{name}.db",
        lambda name: (tmp_path / f"{name}.db").unlink(),
    )


@pytest.fixture
def engines(world: World) -> Engines:
    return Engines({"main": world.endpoint})


@pytest.fixture
def one(world: World, engines: Engines) -> Iterator[TenantEngine]:
    visit = world.visit(engines, "one")
    yield visit
    visit.close()


@pytest.fixture
def two(world: World, engines: Engines) -> Iterator[TenantEngine]:
    visit = world.visit(engines, "two")
    yield visit
    visit.close()


# The kind.


def test_a_prepared_server_has_an_initialised_dialect(world: World) -> None:
    dialect = world.prepared().dialect

    assert dialect.server_version_info
    assert dialect.name == world.kind.name


def test_a_session_reads_and_writes_its_database_and_does_not_commit_by_itself(
    world: World,
) -> None:
    parts = world.prepared()
    for _ in range(2):
        session = world.kind.connect(parts, world.database("one"))
        engine = Engine(
            NullPool(lambda s=session: s, dialect=parts.dialect),
            parts.dialect,
            make_url("sqlite://"),
        )
        with engine.connect() as connection:
            assert connection.execute(text("SELECT COUNT(*) FROM people")).scalar_one() == 0
            connection.execute(text("INSERT INTO people VALUES (1, 'a')"))


def test_a_database_that_does_not_exist_is_gone_at_connect(world: World) -> None:
    parts = world.prepared()
    world.drop("one")

    with pytest.raises(parts.dialect.loaded_dbapi.Error) as failed:
        world.kind.connect(parts, world.database("one"))

    assert facts(failed.value).gone
    assert not facts(failed.value).lost
    assert not facts(failed.value).refused


@pytest.mark.parametrize(
    ("number", "refused"),
    [
        (2003, True),  # nobody listens, or answers in time
        (2013, True),  # a greeting that never came
        (1040, True),
        (1203, True),
        (1226, True),
        (1129, True),  # too many errors from this host
        (1044, False),  # denied for this database
        (1045, False),
        (1049, False),
        (1213, False),
    ],
)
def test_a_server_that_takes_nobody_is_told_from_one_that_answers(
    number: int, *, refused: bool
) -> None:
    assert facts(pymysql.OperationalError(number, "no")).refused is refused


def test_a_session_that_is_closed_cannot_be_made_new(world: World) -> None:
    session = world.kind.connect(world.prepared(), world.database("one"))
    session.close()

    assert world.kind.retire(session) is None


def test_what_is_listed_is_not_refused(world: World, one: TenantEngine) -> None:
    with one.engine.connect() as connection:
        listed = world.kind.list_databases(connection)

    assert {world.kind.refuse(name) for name in listed} <= {None}
    assert listed == sorted(listed)


@pytest.mark.parametrize("name", ["", " ", "bell\a", "line\nbreak", "blank ", "\u202eltr"])
def test_names_that_cannot_be_shown_are_refused(world: World, name: str) -> None:
    assert world.kind.refuse(name)


@pytest.mark.parametrize("name", ["acme", "Größe_日本", "a-b", "a`b", "a%b", "a b", "a'b"])
def test_names_that_need_quoting_are_not_refused(world: World, name: str) -> None:
    assert world.kind.refuse(name) is None


def test_errors_are_described_without_values(world: World, one: TenantEngine) -> None:
    insert = text("INSERT INTO people VALUES (:id, :email)")
    with one.engine.connect() as connection, pytest.raises(IntegrityError) as failed:
        for id_ in (1, 2):
            connection.execute(insert, {"id": id_, "email": "O'Brien' for key 'me"})

    said = describe(failed.value)
    assert "Brien" not in said
    assert "INSERT INTO people" in said
    assert facts(failed.value).code
    assert not facts(failed.value).gone


def test_a_missing_table_is_named(world: World, one: TenantEngine) -> None:
    with one.engine.connect() as connection, pytest.raises(DBAPIError) as failed:
        connection.execute(text("SELECT 1 FROM nowhere"))

    assert "nowhere" in facts(failed.value).text
    assert not facts(failed.value).transient


@pytest.mark.parametrize(
    "error", [ValueError("1049"), pymysql.OperationalError(1049, "?"), sqlite3.OperationalError()]
)
def test_errors_of_others_are_not_a_kinds_business(world: World, error: Exception) -> None:
    own = world.prepared().dialect.loaded_dbapi.Error

    assert (world.kind.facts(error) is None) is not isinstance(error, own)


@pytest.mark.parametrize(
    ("message", "masked"),
    [
        ("no quotes, it doesn't matter", "no quotes, it doesn't matter"),
        ("Incorrect value: 'x' for column `c`", "Incorrect value: '?' for column `c`"),
        ("Can't accept 'O'Brien' here, can't", "Can't accept '?' here, can't"),
        ("near 'WHERE a = \"x\" AND b = 'y'' at line 1", "near '?' at line 1"),
        ("never ends 'secret", "never ends '?'"),
    ],
)
def test_what_stands_in_quotes_is_masked(message: str, masked: str) -> None:
    assert mask_quoted(message) == masked


def test_a_session_of_another_process_is_ended_by_the_server_s_number_of_it(world: World) -> None:
    opened: list[int] = []
    there = Engines({"main": world.endpoint}, on_open=opened.append)
    here = Engines({"main": world.endpoint})
    session = world.visit(there, "one")
    session.connect()
    far = here.far("main")
    for number in opened:
        far.add(number)

    assert far.cancel() is False, "it was doing nothing"
    far.sever()
    if opened:
        with session.engine.connect() as connection, pytest.raises(DBAPIError):
            connection.execute(text("SELECT 1"))
    else:
        assert world.kind.name == "sqlite"
    session.close()
    here.close()


# The engine that a job sees.


def test_orm_sessions_work(one: TenantEngine) -> None:
    with Session(one.engine) as session, session.begin():
        session.add(Person(id=1, email="a@example.org"))
    with Session(one.engine) as session:
        assert session.scalars(select(Person.email)).all() == ["a@example.org"]


def test_a_connection_in_autocommit_commits_each_statement_and_later_ones_do_not(
    one: TenantEngine,
) -> None:
    with one.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(text("INSERT INTO people VALUES (1, 'kept')"))
        connection.rollback()
        connection.execution_options(isolation_level=connection.default_isolation_level)
        with connection.begin_nested():
            connection.execute(text("INSERT INTO people VALUES (2, 'taken back')"))
        connection.rollback()
        assert connection.scalars(text("SELECT email FROM people")).all() == ["kept"]


def test_what_a_transaction_forbids_works_in_autocommit(sqlite_world: World) -> None:
    visit = sqlite_world.visit(Engines({"main": sqlite_world.endpoint}), "one")
    with visit.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(text("VACUUM"))
    with visit.engine.connect() as connection, pytest.raises(DBAPIError, match="transaction"):
        connection.execute(text("VACUUM"))
    visit.close()


def test_reflection_finds_the_tenants_own_tables(
    world: World, one: TenantEngine, two: TenantEngine
) -> None:
    with two.engine.begin() as connection:
        connection.execute(text("CREATE TABLE only_here (id INTEGER PRIMARY KEY)"))

    everything = MetaData()
    everything.reflect(one.engine)
    assert list(everything.tables) == ["people"]
    assert inspect(two.engine).get_table_names() == ["only_here", "people"]
    people = Table("people", MetaData(), autoload_with=one.engine)
    assert people.primary_key.columns.keys() == ["id"]
    assert inspect(one.engine).default_schema_name in {world.database("one"), "main"}


def test_events_work_and_end_with_the_job(one: TenantEngine) -> None:
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    event.listen(one.engine, "before_cursor_execute", note)
    with one.engine.connect() as connection:
        event.listen(connection, "commit", lambda _: seen.append("commit"))
        connection.execute(text("SELECT 1"))
        connection.commit()
    one.renew()
    with one.engine.connect() as connection:
        connection.execute(text("SELECT 2"))

    assert seen == ["SELECT 1", "commit"]


def test_a_renewed_engine_has_one_session_and_no_open_transaction(one: TenantEngine) -> None:
    kept = one.engine.connect()
    kept.execute(text("INSERT INTO people VALUES (1, 'left behind')"))
    one.renew()

    with one.engine.connect() as connection:
        assert connection.execute(text("SELECT COUNT(*) FROM people")).scalar_one() == 0
        connection.execute(text("INSERT INTO people VALUES (2, 'new')"))


@pytest.mark.parametrize("end", ["renew", "close"])
def test_an_engine_that_was_kept_opens_nothing_more(one: TenantEngine, end: str) -> None:
    kept = one.engine
    with kept.connect() as connection:
        connection.execute(text("SELECT 1"))
    getattr(one, end)()

    with pytest.raises(VisitOverError):
        kept.connect()


def test_a_statement_is_compiled_once_for_all_tenants_of_a_server(
    engines: Engines, one: TenantEngine, two: TenantEngine
) -> None:
    people = Table("people", MetaData(), Column("id", Integer), Column("email", String(60)))
    compiled = engines.server("main").compiled
    before = len(compiled)
    for visit in (one, two, one):
        with visit.engine.connect() as connection:
            connection.execute(select(people.c.email).where(people.c.id == 1))

    assert len(compiled) == before + 1


def test_dialects_of_one_server_are_equal_and_of_two_are_not(world: World) -> None:
    mine, other = world.prepared().dialect, world.prepared().dialect
    copies = {tenant_dialect(mine, name) for name in TENANTS}

    assert copies == {mine}
    assert mine != other
    assert tenant_dialect(mine, "one").default_schema_name == "one"
    assert mine.default_schema_name != "one"


def test_the_constructor_of_engines_still_takes_a_pool_a_dialect_and_a_url(world: World) -> None:
    """It is not documented; `create_engine` would ask the server again for every tenant."""
    parts = world.prepared()
    pool = NullPool(lambda: world.kind.connect(parts, world.database("one")), dialect=parts.dialect)
    engine = Engine(pool, parts.dialect, parts.endpoint.url, hide_parameters=True)

    with engine.begin() as connection:
        connection.execute(text("INSERT INTO people VALUES (1, 'a')"))
    with engine.connect() as connection:
        assert connection.execute(text("SELECT email FROM people")).scalars().all() == ["a"]
    assert (engine.dialect, engine.pool, engine.hide_parameters) == (parts.dialect, pool, True)
