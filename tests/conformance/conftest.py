"""A ledger on each kind of database: one body of tests, several ledgers."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url, text

from cronrunner.databases import Endpoint
from cronrunner.ledger import Queries, open_engine
from cronrunner.ledger.store import Ledger
from cronrunner.model import Claims, Key, Outcome, Request, Result
from tests.conformance.holder import SLOT, this_run
from tests.servers import MariaDB

ROOT = Path(__file__).parents[2]
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass
class Clock:
    """A clock that a test sets."""

    now: datetime = NOON

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **given: float) -> None:
        self.now += timedelta(**given)


@dataclass
class LedgerDatabase:
    """A database for a ledger, and the ledgers that runners open on it."""

    url: str
    server: MariaDB | None = None
    clock: Clock = field(default_factory=Clock)
    opened: list[Ledger] = field(default_factory=list)

    def open(self, **given: Any) -> Ledger:
        """Open the ledger as one more runner."""
        ledger = Ledger(open_engine(self.endpoint), clock=self.clock, **given)
        self.opened.append(ledger)
        return ledger

    def begin(
        self, name: str, *, heartbeat: timedelta = timedelta(seconds=5), **given: Any
    ) -> Ledger:
        """Open the ledger and a run in it, this process' unless ``given`` says otherwise."""
        ledger = self.open(heartbeat=heartbeat)
        run = replace(this_run(name), started_at=self.clock(), **given)
        ledger.begin_run(run, fleet=True, selection={})
        return ledger

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(name="ledger", url=make_url(self.url))

    @property
    def queries(self) -> Queries:
        return Queries(self.opened[0]._engine)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(open_engine(self.endpoint).connect()) as connection:
            found = [tuple(row) for row in connection.execute(text(sql))]
            connection.engine.dispose()
            return found

    def execute(self, sql: str) -> None:
        engine = open_engine(self.endpoint)
        with engine.connect().execution_options(write=True) as connection, connection.begin():
            connection.execute(text(sql))
        engine.dispose()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Take the ledger away from its writers for a moment."""
        if self.server is not None:
            name = make_url(self.url).database
            for session in self.server.process_list():
                if session["db"] == name:
                    self.server.execute(f"KILL {session['id']}")
            yield
            return
        self.execute("ALTER TABLE executions RENAME TO executions_away")
        try:
            yield
        finally:
            self.execute("ALTER TABLE executions_away RENAME TO executions")

    def process(self, name: str, tenants: int) -> subprocess.Popen[str]:
        """Start a runner's ledger in a process of its own: see ``holder``."""
        program = "from tests.conformance.holder import main; import sys; "
        program += "main(sys.argv[1], sys.argv[2], int(sys.argv[3]))"
        return subprocess.Popen(
            [sys.executable, "-c", program, self.url, name, str(tenants)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )


@pytest.fixture(params=["sqlite", "mariadb"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LedgerDatabase]:
    """Give an empty database for a ledger, on each kind."""
    if request.param == "sqlite":
        database = LedgerDatabase(f"sqlite:///{tmp_path}/ledger.db")
    else:
        server: MariaDB = request.getfixturevalue("mariadb")
        name = f"{request.getfixturevalue('prefix')}ledger"
        server.create_databases([name])
        database = LedgerDatabase(server.url(database=name), server)
    yield database
    for ledger in database.opened:
        ledger.close()


def key(tenant: str = "acme", job: str = "count", slot_key: str = SLOT.key) -> Key:
    return Key(job=job, tenant=tenant, slot_key=slot_key)


def until(happened: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until something has happened; fail if it does not."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def result_of(claims: Claims, key: Key, *, run: str = "r1", **given: Any) -> Result:
    """Make the result of a granted claim; it succeeded unless ``given`` says otherwise."""
    request = Request(key=key, run=run, slot=SLOT.at, attempt=1, fence=claims.granted.get(key, 0))
    blank: dict[str, Any] = {
        "server": "main", "outcome": Outcome.SUCCEEDED, "started_at": NOON,
        "duration_seconds": 2.0,
    }  # fmt: skip
    return Result(request=request, **{**blank, **given})
