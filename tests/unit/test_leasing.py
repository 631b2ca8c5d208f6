"""The engine of one job: a copy that is as good as an engine which SQLAlchemy made in full."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, make_url, text
from sqlalchemy.exc import TimeoutError as CheckoutTimeoutError

from cronrunner.databases import Endpoint, ServerParts, kind_of
from cronrunner.engines import leasing
from cronrunner.engines.leasing import Mould, VisitPool, retire
from cronrunner.errors import VisitOverError

Make = Callable[[], Engine]


@pytest.fixture
def parts(tmp_path: Path) -> ServerParts:
    (tmp_path / "one.db").touch()
    endpoint = Endpoint(name="main", url=make_url("sqlite://"), folder=tmp_path)
    return kind_of("sqlite").prepare(endpoint)


def connect_to(parts: ServerParts) -> Callable[[], Any]:
    return lambda: parts.kind.connect(parts, "one.db")


@pytest.fixture
def make(parts: ServerParts) -> Make:
    mould = Mould(parts)
    return lambda: mould.engine("one.db", connect_to(parts))


def test_a_copy_has_what_an_engine_has_that_was_made_in_full(
    parts: ServerParts, make: Make
) -> None:
    copy = make()
    whole = Engine(
        VisitPool(connect_to(parts), copy.dialect),
        copy.dialect,
        make_url("sqlite:///one.db"),
        hide_parameters=True,
        query_cache_size=0,
        execution_options={"compiled_cache": parts.compiled},
    )

    def known(thing: Engine | VisitPool, *own: str) -> dict[str, Any]:
        return {name: value for name, value in vars(thing).items() if name not in own}

    assert known(copy, "pool", "dispatch") == known(whole, "pool", "dispatch")
    assert isinstance(copy.pool, VisitPool)
    assert isinstance(whole.pool, VisitPool)
    own = ("_creator_arg", "_invoke_creator", "_turn")
    assert known(copy.pool, *own) == known(whole.pool, *own)
    assert set(vars(copy.pool)) == set(vars(whole.pool))


def test_what_is_put_on_one_engine_is_on_no_other(make: Make) -> None:
    heard: list[str] = []
    first = make()
    event.listen(first, "commit", lambda _: heard.append("commit"))
    event.listen(first.pool, "checkout", lambda *_: heard.append("checkout"))
    first.update_execution_options(mine=True)

    for engine in (first, make()):
        with engine.begin() as connection:
            connection.execute(text("SELECT 1"))

    assert heard == ["checkout", "commit"]
    assert "mine" not in make().get_execution_options()


def test_threads_take_turns_on_the_one_connection(make: Make) -> None:
    engine = make()
    numbers: list[int] = []

    def use() -> None:
        with engine.connect() as connection:
            numbers.append(id(connection.connection.dbapi_connection))

    held = engine.connect()
    other = threading.Thread(target=use)
    other.start()
    held.close()
    other.join()
    use()

    assert len(set(numbers)) == 1


def test_who_waits_for_himself_is_told(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leasing, "_CHECKOUT_SECONDS", 0.05)
    engine = make()
    with engine.connect(), pytest.raises(CheckoutTimeoutError, match="one connection was in use"):
        engine.connect()

    with engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1


def test_an_engine_that_was_disposed_of_connects_anew_and_keeps_its_listeners(make: Make) -> None:
    heard: list[str] = []
    engine = make()
    event.listen(engine, "checkout", lambda *_: heard.append("checkout"))
    with engine.connect() as connection:
        before = connection.connection.dbapi_connection
    engine.dispose()
    with engine.connect() as connection:
        assert connection.connection.dbapi_connection is not before

    assert heard == ["checkout"] * 2


def test_a_connection_in_use_outlives_the_disposal_of_its_engine(make: Make) -> None:
    engine = make()
    with engine.connect() as connection:
        engine.dispose()
        assert connection.execute(text("SELECT 1")).scalar_one() == 1


def test_the_pool_answers_what_pools_are_asked(make: Make) -> None:
    pool = make().pool
    assert isinstance(pool, VisitPool)

    def asked() -> tuple[float, ...]:
        return pool.size(), pool.checkedin(), pool.checkedout(), pool.overflow()

    assert asked() == (1, 0, 0, 0)
    connection = pool.connect()
    assert asked() == (1, 0, 1, 0)
    assert "1 of 1" in pool.status()
    connection.close()
    assert asked() == (1, 1, 0, 0)
    assert pool.timeout() > 0


def test_a_connect_that_failed_does_not_hold_the_place() -> None:
    def fail() -> Any:
        raise OSError("no")

    pool = VisitPool(fail)
    for _ in range(2):
        with pytest.raises(OSError, match="no"):
            pool.connect()
    assert pool.checkedout() == 0


def test_a_retired_engine_gives_nothing_even_when_it_is_disposed_of(make: Make) -> None:
    engine = make()
    engine.connect().close()
    kept = engine.pool
    retire(engine)

    assert isinstance(kept, VisitPool)
    assert kept.checkedin() == 0
    for _ in range(2):
        with pytest.raises(VisitOverError):
            engine.connect()
        engine.dispose()
