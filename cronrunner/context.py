"""What a job is given.

A context lives for one attempt. Its connection is the visit's only one; it belongs to
``ctx.connection`` (and ``ctx.session()``) or to ``ctx.engine``, not to both at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, CursorResult, Engine

from cronrunner.batching import Batching, keys_after
from cronrunner.databases.clauses import Clause
from cronrunner.databases.dry import DryGuard
from cronrunner.errors import (
    BatchError,
    ConnectionBusyError,
    ConnectionClosedError,
    DeadlineError,
    FleetOnlyError,
    NoTenantError,
)
from cronrunner.limiting import Limits, RateLimit
from cronrunner.model import EMPTY, FLEET, Job, Request, Tenant, Transaction
from cronrunner.sqltext import Pieces, read_pieces

if TYPE_CHECKING:
    from sqlalchemy.orm import Session
    from structlog.typing import FilteringBoundLogger

    from cronrunner.http_client import HttpSession


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What the contexts of a run share."""

    limits: Limits = field(default_factory=Limits)
    #: Gives the engine of the ledger's database that is for fleet-scope work.
    fleet_engine: Callable[[], Engine] | None = None


class JobContext:
    """One attempt of one job on one tenant, as the job sees it."""

    def __init__(  # noqa: PLR0913 - everything an author may ask for
        self,
        *,
        job: Job,
        request: Request,
        tenant: Tenant,
        engine: Engine | None,
        log: Callable[[], FilteringBoundLogger],
        clock: Callable[[], datetime],
        deadline: datetime,
        options: Mapping[str, Any] = EMPTY,
        prepared: Any = None,  # noqa: ANN401 - what the job's prepare returned
        results: Callable[[], Iterable[Mapping[str, Any]]] | None = None,
        shared: Shared | None = None,
    ) -> None:
        #: The tenant; for fleet-scope work its name is the empty string.
        self.tenant = tenant
        #: The instant for which the work was scheduled; decisions and stamps use it.
        self.slot = request.slot
        #: The job's name.
        self.job = job.name
        #: The id of the run.
        self.run = request.run
        #: 1 for the first try.
        self.attempt = request.attempt
        #: True in a dry run: what the job does in its database is rolled back.
        self.dry_run = request.dry_run
        #: Option values by name, overrides applied.
        self.options = options
        #: What the job's ``prepare`` returned; ``None`` without one.
        self.prepared = prepared
        #: What the folder's start-up hook returned; ``None`` without one.
        self.app: Any = None
        #: Set when the deadline is over, or a drain does not wait any longer.
        self.ending = threading.Event()
        #: What ``note`` was given last; read by the runner.
        self.noted: str | None = None
        self._job = job
        self._make_log = log
        self._request = request
        self._engine = engine
        self._clock = clock
        self._deadline = deadline
        self._results = results
        self._shared = shared or Shared()
        self._fleet_engine: Engine | None = None
        #: What is to be written when the work has succeeded, by key.
        self._writes: dict[str, Callable[[Connection], object]] = {}
        self._http: HttpSession | None = None
        self._connection: Connection | None = None
        self._sessions: list[Session] = []
        self._batching: Batching | None = None
        self._guard: DryGuard | None = None
        if request.dry_run and engine is not None:
            self._guard = DryGuard(engine)

    @cached_property
    def log(self) -> FilteringBoundLogger:
        """A structlog logger; run, job, tenant, slot, attempt and server are bound."""
        return self._make_log()

    @property
    def now(self) -> datetime:
        """The time, in UTC. Decisions use ``slot``: a repeated slot then repeats them."""
        return self._clock()

    @property
    def idempotency_key(self) -> str:
        """A text that is the same whenever this work is done again for this slot."""
        key = self._request.key
        return f"{key.job}/{key.tenant}/{key.slot_key}"

    def note(self, text: str) -> None:
        """Say in a few words what came of this execution; the last words count.

        Kept in the ledger and shown beside the counters, secrets taken out, at most 500 characters.
        """
        self.noted = str(text)

    def remaining(self) -> timedelta:
        """Return how much of the job's timeout is left; never negative."""
        return max(self._deadline - self._clock(), timedelta())

    def check(self) -> None:
        """Raise ``DeadlineError`` when nothing is left: call it now and then in a long loop."""
        if not self.remaining():
            raise DeadlineError

    @property
    def connection(self) -> Connection:
        """A connection to the tenant's database, in a transaction unless the job has none.

        Committed when the job returns and rolled back on any exception. With
        ``transaction="batch"`` each batch is committed as well. Raises ``NoTenantError`` in
        fleet-scope work.
        """
        if self._connection is None:
            engine = self._tenant_engine()
            if engine.pool.checkedout():  # type: ignore[attr-defined] # a VisitPool
                raise ConnectionBusyError
            self._connection = engine.connect()
            if self._job.transaction is not Transaction.NONE:
                self._connection.begin()
            if self._job.transaction is Transaction.BATCH:
                self._batching = self._open_batching(self._connection)
        return self._connection

    def _open_batching(self, connection: Connection) -> Batching:
        return Batching(
            connection,
            self._request.key,
            clock=self._clock,
            commit=self._commit_batch,
            check=self.check,
            dry_run=self.dry_run,
        )

    def batches(
        self,
        source: Any,  # noqa: ANN401 - a column, a mapped attribute, or a function
        *,
        where: ColumnElement[bool] | None = None,
        size: int = 500,
        name: str = "",
        key: Callable[[Any], Any] = lambda member: member,
    ) -> Iterator[Sequence[Any]]:
        """Give the keys of rows in order, a list of at most ``size`` at a time.

        Each pass of the loop is one transaction, committed with a checkpoint: an attempt after
        one that was ended goes on behind the last batch that was committed. ``check`` is called
        in between. ``source`` is a column of unique numbers or texts, such as the primary key;
        ``where`` says which rows. Or it is a function that is given what the last batch ended
        with (``None`` at first) and returns the next members; ``key`` is then what a member is
        known by, which JSON can hold. Two of one job differ by their ``name``.

        Raises ``BatchError`` unless the job has ``transaction="batch"``.
        """
        connection = self.connection
        if self._batching is None:
            raise BatchError
        next_after = source if callable(source) else keys_after(connection, source, where, size)
        return self._batching.over(next_after, name, key)

    @property
    def engine(self) -> Engine:
        """The tenant's engine, for code that wants one: a pool of one connection.

        What is done on it is committed by whoever does it. Raises ``ConnectionBusyError``
        while ``connection`` is in use, and ``DryRunError`` in a dry run.
        """
        if self._guard is not None:
            self._guard.refuse(
                "ctx.engine is committed by whoever uses it; use ctx.connection or ctx.session()"
            )
        if self._connection is not None:
            raise ConnectionBusyError
        return self._tenant_engine()

    def session(self) -> Session:
        """Open an ORM session on ``connection``; the runner flushes it and ends the transaction."""
        from sqlalchemy.orm import Session  # noqa: PLC0415 - only jobs that use the ORM pay

        session = Session(bind=self.connection)
        self._sessions.append(session)
        return session

    def execute(self, statement: str | Pieces, **parameters: object) -> CursorResult[Any]:
        """Execute SQL text on ``connection``, with ``:now``, ``:slot``, ``:tenant`` and options.

        A list stands for its members: ``role IN :roles``. What stands in quotes or comments is no
        parameter. Raises ``UnknownParameterError``.
        """
        pieces = read_pieces(statement) if isinstance(statement, str) else statement
        own = {"now": self.now, "slot": self.slot, "tenant": self.tenant.name}
        return self.connection.execute(Clause(pieces, {**own, **self.options, **parameters}))

    def rate_limit(self, name: str, per_second: float, *, burst: int | None = None) -> RateLimit:
        """Return a limit by which all visits of the run share ``per_second`` permits.

        At most ``burst`` permits are given in any ``burst / per_second`` seconds: what one second
        allows unless it is said. ``take()`` tells at once whether there is one, ``wait()`` waits
        for it within the job's timeout, ``pause(until)`` stops all. Raises ``ValueError``.
        """
        return RateLimit(
            self._shared.limits,
            name,
            per_second,
            burst=burst,
            clock=self._clock,
            remaining=self.remaining,
        )

    @property
    def http(self) -> HttpSession:
        """A session of ``requests`` with timeouts, which never waits beyond the job's own.

        GET, HEAD, OPTIONS, PUT and DELETE are repeated when a connection or a gateway fails. Its
        errors name the server and nothing else of a URL. Closed when the job has ended. A dry run
        sends only GET, HEAD and OPTIONS.
        """
        if self._http is None:
            from cronrunner.http_client import HttpSession  # noqa: PLC0415 - 0.1 s, where it is used

            self._http = HttpSession(self.remaining, dry_run=self.dry_run)
        return self._http

    @property
    def fleet_engine(self) -> Engine:
        """An engine on the ledger's own database, for work that is done once for the fleet.

        What is done on it is committed by whoever does it. Be brief: a SQLite ledger has one
        writer, and the run waits for it. ``on_success`` is better where it will do. A dry run
        refuses to commit. Raises ``FleetOnlyError`` in the job of a tenant.
        """
        if self._fleet_engine is None:
            if self.tenant.name != FLEET or self._shared.fleet_engine is None:
                raise FleetOnlyError
            # Of this attempt alone: a dry run listens to it.
            self._fleet_engine = self._shared.fleet_engine().execution_options(write=True)
            if self.dry_run:
                self._guard = DryGuard(self._fleet_engine)
        return self._fleet_engine

    def on_success(self, key: str, write: Callable[[Connection], object]) -> bool:
        """Have ``write`` called with a connection to the ledger's database if the work succeeds.

        All that was asked for is one transaction, after the job has returned. Once for each
        ``key``: returns whether it was new. Raises ``FleetOnlyError`` in the job of a tenant.
        """
        _ = self.fleet_engine
        return self._writes.setdefault(key, write) is write

    def results(self) -> Iterable[Mapping[str, Any]]:
        """Stream the outcomes of this job's slot, in ``summarize`` only."""
        if self._results is None:
            msg = "ctx.results() is for summarize; a job sees its own tenant only"
            raise NoTenantError(msg)
        return self._results()

    def _tenant_engine(self) -> Engine:
        if self._engine is None:
            raise NoTenantError
        return self._engine

    def finish(self, *, commit: bool) -> int:
        """Commit or roll back, and give the connection back. Called by the runner.

        A dry run is rolled back in any case: returns how many rows it had changed. Raises
        ``DryRunError`` if it did what cannot be rolled back, whether the job noticed or not.
        """
        connection, self._connection = self._connection, None
        guard, rows = self._guard, 0
        if self._http is not None:
            self._http.close()
        if commit and self._writes:
            rows = self._write_for_fleet(self.fleet_engine, guard)
        if connection is not None:
            try:
                if guard is not None:
                    rows = self._undo(connection, guard, commit=commit)
                elif commit:
                    self._make_ready(connection)
                    if self._batching is not None:
                        self._batching.end()
                    connection.commit()
                elif not connection.closed:
                    connection.rollback()
            finally:
                connection.close()
        if guard is not None:
            guard.check()
        return rows

    def _commit_batch(self) -> None:
        """End a batch's transaction and begin the next one. A dry run has one for all."""
        connection = self.connection
        if self._guard is not None:
            return
        self._make_ready(connection)
        for session in self._sessions:
            # It takes part in the transaction that is ended here, and keeps nothing of it.
            session.commit()
        connection.commit()
        connection.begin()

    def _write_for_fleet(self, engine: Engine, guard: DryGuard | None) -> int:
        """Write what waited for the success, in one transaction; return how many rows if dry."""
        with engine.connect() as connection:
            for write in self._writes.values():
                write(connection)
            if guard is None:
                connection.commit()
                return 0
            rows = guard.rows_changed()
            guard.undo(connection)
            return rows

    def _make_ready(self, connection: Connection) -> None:
        """Do what comes before a commit."""
        if connection.closed and self._job.transaction is not Transaction.NONE:
            raise ConnectionClosedError
        for session in self._sessions:
            session.flush()

    def _undo(self, connection: Connection, guard: DryGuard, *, commit: bool) -> int:
        """Roll back; return how many rows a commit would have changed."""
        try:
            if not commit:
                return 0
            self._make_ready(connection)
            return guard.rows_changed()
        finally:
            guard.undo(connection)
