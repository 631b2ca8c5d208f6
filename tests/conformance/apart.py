"""Visits in real processes whose attempts are made by a test's own `perform`, over a socket."""

import os
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from cronrunner.affinity import allowed_cpus
from cronrunner.errors import ProcessDied
from cronrunner.executors import Crew, Outside, Perform, ProcessExecutor, Serving
from cronrunner.model import Outcome, Request, Result, Tenant, VisitRequest
from cronrunner.processes import Line, Processes


@dataclass(frozen=True)
class Asked:
    """What a process is to do."""

    address: str
    threads: int
    servers: tuple[str, ...]


def serve(asked: Asked, line: Line) -> None:
    """In the process."""
    Serving(line).run(
        lambda visit: _attempts(asked.address, visit),
        threads=asked.threads,
        servers=asked.servers,
        cancel=lambda: None,
        learn=lambda _: None,
    )


def _attempts(address: str, visit: VisitRequest) -> Iterator[Result]:
    with Client(address, family="AF_UNIX") as test:
        test.send(VisitRequest(tenant=visit.tenant, requests=visit.requests))
        try:
            for _ in visit.requests:
                test.send("next")
                answer = test.recv()
                if isinstance(answer, Exception):
                    raise answer
                yield answer
        finally:
            test.send("close")
            with suppress(EOFError):
                test.recv()


class Stage:
    """In the test: performs what the processes ask for."""

    def __init__(self, perform: Perform) -> None:
        self._perform = perform
        self.address = str(Path(gettempdir()) / f"stage-{os.getpid()}-{secrets.token_hex(4)}")
        self._listener = Listener(self.address, family="AF_UNIX", backlog=64)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection = self._listener.accept()
                threading.Thread(target=self._play, args=(connection,), daemon=True).start()

    def _play(self, connection: Connection) -> None:
        with connection, suppress(EOFError, OSError):
            attempts = self._perform(connection.recv())
            while connection.recv() == "next":
                try:
                    connection.send(next(attempts))
                except Exception as error:  # noqa: BLE001 - raised over there
                    connection.send(error)
            attempts.close()  # type: ignore[attr-defined] # a generator
            connection.send("closed")

    def close(self) -> None:
        # A thread that waits in `accept` is not woken by closing what it waits for.
        with suppress(OSError):
            self._listener._listener._socket.shutdown(2)  # type: ignore[attr-defined]
        self._listener.close()


class Apart(ProcessExecutor):
    """An executor that ends what it has been given."""

    def __init__(self, stage: Stage, processes: Processes, *arguments: Any, **named: Any) -> None:
        self._stage: Stage | None = stage
        self._all = processes
        super().__init__(*arguments, **named)

    def close(self) -> None:
        super().close()
        self._all.close()
        if self._stage is not None:
            self._stage.close()
            self._stage = None


def outside(**named: Any) -> Outside:
    """Make what a run does for its processes: as little as can be."""
    return Outside(
        **{
            "on_stuck": lambda _: None,
            "emit": lambda _: None,
            "write": lambda _: None,
            "kill": lambda *_: None,
            "died": died,
            "policy": lambda *_: None,
        }
        | named
    )


def died(request: Request, tenant: Tenant, since_seconds: float, error: ProcessDied) -> Result:
    from datetime import UTC, datetime

    del since_seconds
    return Result(
        request=request,
        server=tenant.server,
        outcome=Outcome.FAILED,
        started_at=datetime.now(UTC),
        duration_seconds=0.0,
        error=str(error),
    )


def make_apart(
    perform: Perform,
    on_result: Any,
    concurrency: int,
    permits: Mapping[str, int],
    breakers: Any,
) -> Apart:
    """Make an executor with two processes, or with one for a single thread."""
    stage = Stage(perform)
    processes = Processes(serve, cpus=allowed_cpus())
    count = min(2, concurrency)
    crews = []
    for number in range(count):
        threads = concurrency // count + (number < concurrency % count)
        lane = processes.make(board=Crew.board_size(threads))
        crews.append(
            Crew(lane=lane, request=Asked(stage.address, threads, tuple(permits)), threads=threads)
        )
    return Apart(
        stage,
        processes,
        perform,
        on_result,
        outside(),
        crews,
        permits=permits,
        breakers=breakers,
    )
