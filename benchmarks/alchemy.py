"""Loops with SQLAlchemy, from the one that everybody writes to the one that a few do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sqlalchemy import URL, Engine, NullPool, create_engine, text

from benchmarks.jobs import STATEMENT
from benchmarks.raw import connect
from benchmarks.spreading import spread


def classic(url: URL, names: Sequence[str], threads: int) -> None:
    """Give each tenant an engine as `create_engine` makes it."""
    _visit(names, threads, lambda name: create_engine(url.set(database=name)))


def nullpool(url: URL, names: Sequence[str], threads: int) -> None:
    """Give each an engine that knows what it does not need."""
    options: dict[str, Any] = {"poolclass": NullPool, "connect_args": {"ssl_disabled": True}}
    _visit(names, threads, lambda name: create_engine(url.set(database=name), **options))


def shared_dialect(url: URL, names: Sequence[str], threads: int) -> None:
    """Give each an engine over the dialect of one that has asked the server all it asks."""
    first = create_engine(url.set(database=names[0]), connect_args={"ssl_disabled": True})
    first.connect().close()
    first.dispose()

    def make(name: str) -> Engine:
        pool = NullPool(lambda: connect(url, name))
        return Engine(pool, first.dialect, url)

    _visit(names, threads, make)


def _visit(names: Sequence[str], threads: int, make: Callable[[str], Engine]) -> None:
    def work(names: Iterator[str]) -> None:
        for name in names:
            visit(make(name))

    spread(names, threads, work)


def visit(engine: Engine) -> None:
    """Execute the statement, and drop the engine."""
    with engine.connect() as connection:
        connection.execute(text(STATEMENT)).scalar_one()
    engine.dispose()
