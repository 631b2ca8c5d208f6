"""The engine and connection that a job sees are ordinary SQLAlchemy, on a real server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.fleet import Finished, Fleet
from tests.servers import MariaDB

pytestmark = pytest.mark.xdist_group("engine_face")

JOBS = """
    from sqlalchemy import MetaData, Table, event, func, inspect, select
    from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

    class Base(DeclarativeBase):
        pass

    class Item(Base):
        __tablename__ = "items"
        id: Mapped[int] = mapped_column(primary_key=True)

    def count(connection):
        return {"items": connection.execute(select(func.count(Item.id))).scalar_one()}

    @job
    def a_session_that_is_not_flushed(ctx):
        ctx.session().add(Item(id=1))

    @job
    def a_session_that_is_committed(ctx):
        with ctx.session() as session:
            session.add(Item(id=2))
            session.commit()
        return count(ctx.connection)

    @job
    def a_session_of_a_job_that_fails_later(ctx):
        with ctx.session() as session:
            session.add(Item(id=3))
            session.commit()
        raise RuntimeError("later")

    @job
    def a_savepoint_rolled_back(ctx):
        ctx.session().add(Item(id=4))
        savepoint = ctx.connection.begin_nested()
        ctx.connection.execute(text("DELETE FROM items"))
        savepoint.rollback()
        return count(ctx.connection)

    @job
    def a_session_on_the_engine(ctx):
        with Session(ctx.engine) as session, session.begin():
            session.add(Item(id=5))
        return count(ctx.connection)

    @job
    def reflection(ctx):
        metadata = MetaData()
        metadata.reflect(ctx.connection)
        mirrored = Table("items", MetaData(), autoload_with=ctx.connection)
        assert inspect(ctx.connection).get_pk_constraint("items")["constrained_columns"] == ["id"]
        return {"tables": len(metadata.tables), "columns": len(mirrored.columns)}

    @job
    def events(ctx):
        seen = []
        event.listen(ctx.engine, "before_cursor_execute", lambda *given: seen.append(given[2]))
        count(ctx.connection)
        return {"seen": len(seen)}

    @job
    def connection_and_engine_at_once(ctx):
        count(ctx.connection)
        ctx.engine.connect()

    @job(transaction="none")
    def its_own_commits(ctx):
        ctx.connection.execute(text("INSERT INTO items VALUES (6)"))
        ctx.connection.commit()
        ctx.connection.execute(text("INSERT INTO items VALUES (7)"))
        ctx.connection.rollback()
        return count(ctx.connection)
"""


@pytest.fixture(scope="module")
def run(mariadb: MariaDB, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    mariadb.create_databases(["face_a"], "CREATE TABLE items (id INT PRIMARY KEY)")
    folder: Path = tmp_path_factory.mktemp("face")
    server = {"url": mariadb.url(), "discover": {"list": [{"name": "a", "database": "face_a"}]}}
    yield Fleet(folder, {"servers": {"main": server}}, {"face": JOBS}).run("--json")
    mariadb.drop_databases("face_")


@pytest.mark.parametrize(
    ("job", "counters"),
    [
        # In the order in which they run: by name.
        ("a_savepoint_rolled_back", {"items": 0}),
        ("a_session_on_the_engine", {"items": 2}),
        ("a_session_that_is_committed", {"items": 3}),
        ("a_session_that_is_not_flushed", {}),
        ("events", {"seen": 1}),
        ("its_own_commits", {"items": 5}),
        ("reflection", {"tables": 1, "columns": 1}),
    ],
)
def test_it_works_as_in_any_program(run: Finished, job: str, counters: dict[str, int]) -> None:
    execution = run.execution(f"face.{job}", "a")

    assert (execution["outcome"], execution["error"]) == ("succeeded", None)
    assert execution["counters"] == counters


def test_the_runner_ends_the_transaction_and_not_the_session(
    run: Finished, mariadb: MariaDB
) -> None:
    assert run.execution("face.a_session_of_a_job_that_fails_later", "a")["outcome"] == "failed"
    items = [id_ for (id_,) in mariadb.execute("SELECT id FROM items", database="face_a")]
    assert items == [1, 2, 4, 5, 6]


def test_connection_and_engine_at_once_is_refused_at_once(run: Finished) -> None:
    execution = run.execution("face.connection_and_engine_at_once", "a")

    assert execution["error"].startswith(
        "ConnectionBusyError: The visit's one connection is in use"
    )
    assert execution["duration_seconds"] < 1
