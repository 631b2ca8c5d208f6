"""What a job sees of `ctx.batches`, on each kind of database."""

import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from sqlalchemy import (
    Column,
    Engine,
    Integer,
    MetaData,
    NullPool,
    String,
    Table,
    create_engine,
    insert,
    make_url,
    select,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from cronrunner import JobContext, Tenant
from cronrunner.databases import Endpoint
from cronrunner.engines import Engines
from cronrunner.errors import BatchError, DeadlineError, NoTenantError
from cronrunner.model import FLEET_TENANT, Job, Key, Request, Transaction

METADATA = MetaData()
ITEMS = Table("items", METADATA, Column("id", Integer, primary_key=True), Column("n", Integer))
WORDS = Table("words", METADATA, Column("word", String(40), primary_key=True))


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    n: Mapped[int]


@pytest.fixture(params=["sqlite", "mariadb"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """Give the engine of a visit to a tenant with ten items and three words."""
    database = f"batches_{secrets.token_hex(4)}"
    mariadb = None
    if request.param == "mariadb":
        mariadb = request.getfixturevalue("mariadb")
        mariadb.create_databases([database])
        endpoint = Endpoint(name="test", url=make_url(mariadb.url()))
    else:
        (tmp_path / database).touch()
        endpoint = Endpoint(name="test", url=make_url("sqlite://"), folder=tmp_path)
    engines = Engines({"test": endpoint})
    visit = engines.visit(Tenant(name="acorn", server="test", database=database))
    with visit.engine.begin() as connection:
        METADATA.create_all(connection)
        connection.execute(insert(ITEMS), [{"id": n, "n": 0} for n in range(1, 11)])
        connection.execute(insert(WORDS), [{"word": word} for word in ("elm", "ash", "oak")])
    yield visit.engine
    visit.close()
    engines.close()
    if mariadb is not None:
        mariadb.drop_databases(database)


def context(engine: Engine | None, **given: Any) -> JobContext:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    key = Key(job="a.x", tenant="acorn", slot_key="2026-03-01T00:00:00Z")
    values: dict[str, Any] = {
        "job": Job(name="a.x", call=print, origin="a.py:1", transaction=Transaction.BATCH),
        "request": Request(key=key, run="r", slot=now, attempt=1, fence=1),
        "tenant": FLEET_TENANT if engine is None else Tenant(name="a", server="t", database="a"),
        "engine": engine,
        "log": structlog.get_logger,
        "clock": lambda: now,
        "deadline": now + timedelta(minutes=5),
        **given,
    }
    return JobContext(**values)


def committed(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return [n for n in connection.scalars(select(ITEMS.c.n).order_by(ITEMS.c.id)) if n]


def add(ctx: JobContext, ids: Any) -> None:
    ctx.connection.execute(ITEMS.update().where(ITEMS.c.id.in_(ids)).values(n=ITEMS.c.n + 1))


def test_keys_come_in_order_and_only_those_that_are_wanted(engine: Engine) -> None:
    ctx = context(engine)
    wanted = list(ctx.batches(ITEMS.c.id, where=ITEMS.c.id > 2, size=3))
    ctx.finish(commit=True)

    assert wanted == [[3, 4, 5], [6, 7, 8], [9, 10]]


def test_keys_may_be_texts(engine: Engine) -> None:
    ctx = context(engine)
    words = list(ctx.batches(WORDS.c.word, size=1))
    ctx.finish(commit=True)

    assert words == [["ash"], ["elm"], ["oak"]]


def test_an_attempt_after_one_that_was_ended_begins_with_the_batch_that_was_rolled_back(
    engine: Engine,
) -> None:
    ctx = context(engine)
    for ids in ctx.batches(ITEMS.c.id, size=4):
        add(ctx, ids)
        if 8 in ids:
            break
    ctx.finish(commit=False)
    assert committed(engine) == [1] * 4

    ctx = context(engine)
    assert list(ctx.batches(ITEMS.c.id, size=4)) == [[5, 6, 7, 8], [9, 10]]
    ctx.finish(commit=False)


def test_a_batch_that_the_loop_is_left_in_is_committed_with_what_follows(engine: Engine) -> None:
    ctx = context(engine)
    for ids in ctx.batches(ITEMS.c.id, size=3, name="some"):
        add(ctx, ids)
        break
    for ids in ctx.batches(ITEMS.c.id, where=ITEMS.c.id > 5, size=3, name="others"):
        if 9 in ids:
            break
    ctx.finish(commit=False)
    assert committed(engine) == [1] * 3

    ctx = context(engine)
    assert next(iter(ctx.batches(ITEMS.c.id, size=3, name="some"))) == [4, 5, 6]
    ctx.finish(commit=False)


@pytest.mark.parametrize("last", [6, 10])
def test_a_batch_that_was_rolled_back_within_the_loop_is_not_taken_for_done(
    engine: Engine, last: int
) -> None:
    ctx = context(engine)
    batches = ctx.batches(ITEMS.c.id, size=3)
    with pytest.raises(BatchError, match="rolled back within the loop"):
        for ids in batches:
            add(ctx, ids)
            if ids[-1] == last:
                # As a deadlock does, whose error the job may have caught.
                ctx.execute("ROLLBACK")
                ctx.execute("BEGIN")
    ctx.finish(commit=False)

    assert committed(engine) == [1] * (3 if last == 6 else 9)


def test_what_follows_the_last_batch_is_committed_with_the_end_of_the_job(engine: Engine) -> None:
    ctx = context(engine)
    for ids in ctx.batches(ITEMS.c.id, size=5):
        add(ctx, ids)
    add(ctx, [1])
    ctx.finish(commit=False)

    assert committed(engine) == [1] * 10


@pytest.mark.parametrize("engine", ["mariadb"], indirect=True)
def test_rows_of_earlier_batches_are_no_longer_locked(engine: Engine) -> None:
    other = create_engine(engine.url, poolclass=NullPool)
    with other.begin() as connection:
        # Of a table as small as ours the server would lock every row, whichever are changed.
        connection.execute(insert(ITEMS), [{"id": n, "n": 0} for n in range(11, 2000)])
    ctx = context(engine)
    for ids in ctx.batches(ITEMS.c.id, where=ITEMS.c.id <= 10, size=5):
        add(ctx, ids)
        if 10 in ids:
            with other.begin() as connection:
                connection.execute(text("SET innodb_lock_wait_timeout = 1"))
                connection.execute(ITEMS.update().where(ITEMS.c.id.in_([1, 5])).values(n=7))
    ctx.finish(commit=True)

    assert committed(engine) == [7, 1, 1, 1, 7, 1, 1, 1, 1, 1]


def test_a_session_of_the_orm_takes_part_in_each_batch(engine: Engine) -> None:
    ctx = context(engine)
    session = ctx.session()
    seen = []
    for ids in ctx.batches(Item.id, size=5):
        for item in session.scalars(select(Item).where(Item.id.in_(ids))):
            item.n += 1
        seen.append(session.get_one(Item, 1).n)
    ctx.finish(commit=False)

    assert committed(engine) == [1] * 10
    assert seen == [1, 1]


def test_any_source_that_can_go_on_after_a_key_will_do(engine: Engine) -> None:
    pages = {None: [{"id": 1}, {"id": 2}], 2: [{"id": 7}], 7: []}
    ctx = context(engine)
    got = []
    for page in ctx.batches(lambda last: pages[last], key=lambda row: row["id"], name="pages"):
        got.append(page)
        if page == [{"id": 7}]:
            break
    ctx.finish(commit=False)
    ctx = context(engine)
    again = list(ctx.batches(lambda last: pages[last], key=lambda row: row["id"], name="pages"))
    ctx.finish(commit=True)

    assert got == [[{"id": 1}, {"id": 2}], [{"id": 7}]]
    assert again == [[{"id": 7}]]


def test_time_is_looked_at_between_batches(engine: Engine) -> None:
    moments = iter([datetime(2026, 3, 1, tzinfo=UTC)] * 2)
    late = datetime(2026, 3, 2, tzinfo=UTC)
    ctx = context(engine, clock=lambda: next(moments, late))
    with pytest.raises(DeadlineError):
        for ids in ctx.batches(ITEMS.c.id, size=2):
            add(ctx, ids)
    ctx.finish(commit=False)

    assert 2 <= len(committed(engine)) < 10


def test_nothing_is_asked_of_the_database_that_it_does_not_have(engine: Engine) -> None:
    ctx = context(engine)
    assert list(ctx.batches(ITEMS.c.id, where=ITEMS.c.n > 0)) == []
    ctx.finish(commit=True)

    assert committed(engine) == []


@pytest.mark.parametrize("transaction", [Transaction.TENANT, Transaction.NONE])
def test_a_job_of_another_transaction_is_refused(engine: Engine, transaction: Transaction) -> None:
    job = Job(name="a.x", call=print, origin="a.py:1", transaction=transaction)
    ctx = context(engine, job=job)
    with pytest.raises(BatchError, match='Declare transaction="batch" for the job'):
        ctx.batches(ITEMS.c.id)
    ctx.finish(commit=False)


def test_work_for_the_fleet_has_no_batches() -> None:
    with pytest.raises(NoTenantError):
        context(None).batches(ITEMS.c.id)


def two_of_one_name(ctx: JobContext) -> None:
    list(ctx.batches(ITEMS.c.id))
    list(ctx.batches(WORDS.c.word))


def one_within_another(ctx: JobContext) -> None:
    for _ in ctx.batches(ITEMS.c.id, name="outer"):
        list(ctx.batches(WORDS.c.word, name="inner"))


def the_same_again(ctx: JobContext) -> None:
    list(ctx.batches(lambda last: [1]))


def keys_that_are_none(ctx: JobContext) -> None:
    list(ctx.batches(lambda last: [object()]))


def none_at_a_time(ctx: JobContext) -> None:
    ctx.batches(ITEMS.c.id, size=0)


@pytest.mark.parametrize(
    ("mistake", "expected"),
    [
        (two_of_one_name, "expected another name than ''"),
        (one_within_another, "got one within another"),
        (the_same_again, "expected what comes after 1"),
        (keys_that_are_none, r"expected keys that JSON can hold .*, got object"),
        (none_at_a_time, "expected a size of at least 1, got 0"),
    ],
)
def test_mistakes_are_told(
    engine: Engine, mistake: Callable[[JobContext], None], expected: str
) -> None:
    ctx = context(engine)
    with pytest.raises(BatchError, match=expected):
        mistake(ctx)
    ctx.finish(commit=False)
