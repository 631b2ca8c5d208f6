"""The engine object of one job: SQLAlchemy's own, over a pool of the visit's one connection.

One is made for each job of each tenant, and SQLAlchemy makes engines to be kept: most of what its
constructors do is the same each time. So they make one engine for a server, which nobody uses, and
each job gets a copy. What is put on an engine later (listeners, options, its connection) is put on
the copy alone; ``test_leasing`` holds a copy against an engine that was made in full.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final, Never, cast

from sqlalchemy import Engine, Pool
from sqlalchemy.exc import TimeoutError as CheckoutTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry

from cronrunner.databases import ServerParts
from cronrunner.databases.base import copied, tenant_dialect
from cronrunner.errors import VisitOverError

#: Seconds until a second checkout of a visit's one connection is an error. A job's own
#: threads may take turns on it; who waits for himself should not wait long.
_CHECKOUT_SECONDS: Final = 2.0


class Mould:
    """Makes the engines of one server."""

    def __init__(self, parts: ServerParts) -> None:
        self._parts = parts
        self._url = parts.endpoint.url
        self._pool = VisitPool(_refuse, parts.dialect)
        self._engine = Engine(
            self._pool,
            parts.dialect,
            self._url,
            hide_parameters=True,
            # Statements are compiled once for the server.
            query_cache_size=0,
            execution_options={"compiled_cache": parts.compiled},
        )
        # The listeners of each copy are its own.
        self._engine.__dict__.pop("dispatch", None)

    def engine(self, database: str, connect: Callable[[], Any]) -> Engine:
        """Return an engine on a database; ``connect`` gives its one DBAPI connection."""
        schema = "main" if self._parts.kind.name == "sqlite" else database
        dialect = tenant_dialect(self._parts.dialect, schema)
        pool = copied(self._pool)
        pool.begin(connect, dialect)
        engine = copied(self._engine)
        engine.pool, engine.dialect = pool, dialect
        engine.url = self._url._replace(database=database)
        # Made here, as it would be by the constructor: two threads of a job might make it twice.
        _ = engine.dispatch
        return engine


class VisitPool(Pool):
    """A pool of one connection; who wants it while another thread has it waits for a moment.

    To whoever looks at it, it is a ``QueuePool`` of one connection.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        dialect: Any = None,  # noqa: ANN401 - a Dialect
        **of_pool: Any,  # noqa: ANN401 - as SQLAlchemy's own pools have it
    ) -> None:
        super().__init__(connect, reset_on_return=None, dialect=dialect, **of_pool)
        self._turn = threading.Lock()
        self._entry: ConnectionPoolEntry | None = None

    def begin(self, connect: Callable[[], Any], dialect: Any) -> None:  # noqa: ANN401 - as above
        """Begin anew, as one that was just made."""
        self._creator = connect
        self._dialect = dialect
        self._turn = threading.Lock()
        self._entry = None

    def empty(self) -> None:
        """Forget the connection, without ending it."""
        self._entry = None

    def size(self) -> int:
        """Return how many connections there can be."""
        return 1

    def checkedout(self) -> int:
        """Return how many are in use."""
        return int(self._turn.locked())

    def checkedin(self) -> int:
        """Return how many are there and not in use."""
        return int(self._entry is not None and not self._turn.locked())

    def overflow(self) -> int:
        """Return how many there are beyond the size."""
        return 0

    def timeout(self) -> float:
        """Return the seconds after which waiting for it is an error."""
        return _CHECKOUT_SECONDS

    def status(self) -> str:
        """Say what is in use."""
        return f"{type(self).__name__}: {self.checkedout()} of {self.size()} connection in use"

    def recreate(self) -> VisitPool:
        """Return one like this, listeners included, with a connection of its own."""
        return type(self)(
            cast("Callable[[], Any]", self._creator),
            self._dialect,
            echo=self.echo,
            logging_name=self._orig_logging_name,
            _dispatch=self.dispatch,
        )

    def dispose(self) -> None:
        """Close the connection, unless it is in use."""
        if self._turn.acquire(blocking=False):
            try:
                if self._entry is not None:
                    self._entry.close()
            finally:
                self._turn.release()

    def _should_wrap_creator(self, creator: Any) -> Any:  # noqa: ANN401 - as the base has it
        """Take the creator as it is; otherwise it is inspected for its arguments each time."""
        return lambda record: creator()  # noqa: ARG005 - the pool's record

    def _do_get(self) -> ConnectionPoolEntry:
        if not self._turn.acquire(timeout=_CHECKOUT_SECONDS):
            text = f"the visit's one connection was in use for {_CHECKOUT_SECONDS:.0f} s"
            raise CheckoutTimeoutError(text)
        if self._entry is None:
            try:
                self._entry = self._create_connection()
            except BaseException:
                self._turn.release()
                raise
        return self._entry

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        del record
        self._turn.release()


def retire(engine: Engine) -> None:
    """Take its connection from an engine that a job may have kept, without ending it."""
    pool, engine.pool = engine.pool, _OVER
    if isinstance(pool, VisitPool):
        pool.empty()


def _refuse() -> Never:
    raise VisitOverError


#: The pool of every engine whose turn is over.
_OVER: Final = VisitPool(_refuse)
