"""A network that swallows everything from one moment on: no connection is closed, nothing arrives."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.fleet import Fleet, finish
from tests.acceptance.joins import ENDLESS
from tests.acceptance.small import until
from tests.acceptance.watching import counting_connections
from tests.faults.conftest import Repetition
from tests.servers import HOST, MariaDB

LIMIT = 4
TIMEOUT_SECONDS = 2.0
GRACE_SECONDS = 2.0

JOBS = f"""
    ENDLESS = "{ENDLESS}"

    @job(name="a.join", timeout="2s", tenants="*far*")
    def join(ctx):
        ctx.connection.execute(text(ENDLESS)).scalar()

    @job(name="b.after", timeout="2s")
    def after(ctx):
        ctx.connection.execute(text("SELECT 1"))
"""


class BlackHole:
    """Forwards to a server what comes in, until it is told to swallow it."""

    def __init__(self, server: MariaDB) -> None:
        self._target = (HOST, server.port)
        self._listener = socket.create_server((HOST, 0), backlog=64)
        #: The port of our own side of a connection, by which the server knows it; 0 is all of them.
        self._silent: set[int] = set()
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True, name="black-hole").start()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def swallow(self, *ports: int) -> None:
        """Forward nothing more, of some connections or of all that are and will be."""
        self._silent.update(ports or {0})

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for each in (self._listener, *self._sockets):
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._sockets += [client, server]
                port = server.getsockname()[1]
                for source, target in ((client, server), (server, client)):
                    pump = threading.Thread(target=self._pump, args=(source, target, port))
                    pump.daemon = True
                    pump.start()

    def _pump(self, source: socket.socket, target: socket.socket, port: int) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if not self._silent & {0, port}:
                    target.sendall(data)
            # Nor does the other side hear that this one has gone.
            if not self._silent & {0, port}:
                target.shutdown(socket.SHUT_WR)


@dataclass(frozen=True)
class Far:
    """A fleet of which one tenant is behind the black hole with two others, and two are not."""

    fleet: Fleet
    hole: BlackHole
    server: MariaDB
    tenant: str

    def joining(self) -> list[int]:
        """Tell from which ports the join is at work."""
        return [
            int(row["host"].rpartition(":")[2])
            for row in self.server.process_list()
            if ENDLESS in str(row["info"]) and row["db"] == self.tenant
        ]


@pytest.fixture
def far(mariadb: MariaDB, prefix: str, tmp_path: Path) -> Iterator[Far]:
    mariadb.create_databases(prefix + name for name in ("far", "near0", "near1", "z0", "z1"))
    mariadb.create_user(f"{prefix}cron", "pw", on=f"`{prefix}%`.*")
    url = mariadb.url(f"{prefix}cron", "pw")
    common = {"max_connections": LIMIT, "connect_timeout": "1s"}
    near = {**common, "url": url, "discover": {"databases": f"{prefix}near*"}}
    with closing(BlackHole(mariadb)) as hole:
        behind = {
            **common,
            "url": url.replace(f":{mariadb.port}", f":{hole.port}"),
            "discover": {"list": [f"{prefix}far", f"{prefix}z0", f"{prefix}z1"]},
        }
        config = {
            "servers": {"far": behind, "near": near},
            "runner": {"grace": f"{GRACE_SECONDS:.0f}s", "concurrency": 4},
        }
        yield Far(Fleet(tmp_path, config, {"late": JOBS}), hole, mariadb, f"{prefix}far")


@pytest.mark.parametrize("whole_server", [False, True], ids=["one connection", "all of them"])
@pytest.mark.repeated(few=1, many=10)
def test_a_connection_that_goes_silent_in_mid_query_is_timed_out_and_never_hangs_the_run(
    mariadb: MariaDB,
    prefix: str,
    far: Far,
    repetition: Repetition,
    whole_server: bool,
) -> None:
    with (
        counting_connections(mariadb, f"{prefix}cron") as connections,
        far.fleet.started("run", "--json") as process,
    ):
        until(far.joining)
        silent_at = time.monotonic()
        far.hole.swallow(*([] if whole_server else far.joining()))
        if not whole_server:
            # The control connection still works: the statement ends at the server as well.
            until(lambda: not far.joining(), TIMEOUT_SECONDS + 2)
        run = finish(process, 30)
        took = time.monotonic() - silent_at

    assert run.code == 1, run.stderr
    assert len(run.document["executions"]) == 6
    assert run.outcomes["a.join", f"{prefix}far"] == "timed_out"
    # Cancelled, its socket shut, and what is behind it on this server given up by the breaker.
    margin = 12.0 if whole_server else 2.0
    assert took < TIMEOUT_SECONDS + GRACE_SECONDS + margin
    assert run.execution("a.join", f"{prefix}far")["duration_seconds"] < TIMEOUT_SECONDS + 3
    near = {tenant: outcome for (_, tenant), outcome in run.outcomes.items() if "near" in tenant}
    assert near == {f"{prefix}near0": "succeeded", f"{prefix}near1": "succeeded"}
    after = run.execution("b.after", f"{prefix}far")
    assert after["outcome"] in ({"failed", "skipped"} if whole_server else {"succeeded"}), after
    assert max(connections) <= 2 * LIMIT
    fault = f"black hole, {'all connections' if whole_server else 'one connection'}"
    repetition.tally.add(fault, repetitions=1, timed_out=1, hung=0)
    repetition.tally.highest(
        fault, ms_from_silence_to_the_end_of_the_run_at_most=round(took * 1000)
    )


def test_a_statement_that_is_lost_in_a_black_hole_without_a_timeout_of_its_own_ends_with_a_drain(
    mariadb: MariaDB,
    prefix: str,
    far: Far,
) -> None:
    far.fleet.write_job("late", JOBS.replace('timeout="2s", ', ""))
    with far.fleet.started("run", "--json") as process:
        until(far.joining)
        far.hole.swallow()
        process.terminate()
        sent = time.monotonic()
        run = finish(process, 30)

    # The server is asked to cancel, in vain, before the socket is shut.
    assert time.monotonic() - sent < GRACE_SECONDS + 5
    assert run.code == 75
    assert run.outcomes["a.join", f"{prefix}far"] == "interrupted"
    mariadb.execute(f"KILL QUERY {killable(mariadb, prefix)}")


def killable(mariadb: MariaDB, prefix: str) -> int:
    """Return the session whose client the server still believes in."""
    (number,) = (row["id"] for row in mariadb.process_list() if row["db"] == f"{prefix}far")
    return int(number)
