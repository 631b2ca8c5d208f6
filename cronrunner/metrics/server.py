"""Serves ``/metrics`` and ``/health`` from the ledger, and never waits long for it.

A client that is silent, slow or gone costs one thread for a few seconds; more clients than
there are places are turned away at once.
"""

from __future__ import annotations

import gzip
import json
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedReader
from typing import Any, Final, Self
from urllib.parse import urlsplit

from prometheus_client.exposition import gzip_accepted

from cronrunner.events import Event, Warned
from cronrunner.metrics.reading import Format, Reader, Reading
from cronrunner.model import LedgerSnapshot

#: How long an answer waits for a fresh reading.
PATIENCE: Final = timedelta(seconds=0.5)

#: How long a client may take for its request, and then for reading the answer.
_CLIENT_SECONDS: Final = 5.0
_PLACES: Final = 32


class MetricsServer:
    """Answers scrapes in threads of its own, from ``start`` until ``stop``.

    ``read`` reads the ledger; it is called from one thread and may hang. ``port`` 0 takes a free
    one. ``/health`` answers 503 when the last good reading ended more than ``max_age`` ago.
    Warnings go to ``emit``, a line for each request to ``note``; ``describe`` writes an exception
    without row values.
    """

    def __init__(  # noqa: PLR0913 - each has a name of its own
        self,
        read: Callable[[], LedgerSnapshot],
        *,
        host: str,
        port: int,
        series_limit: int,
        emit: Callable[[Event], None],
        describe: Callable[[BaseException], str],
        note: Callable[[str], None] | None = None,
        max_age: timedelta = timedelta(minutes=1),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._address = (host, port)
        self._reader = Reader(
            read,
            series_limit=series_limit,
            emit=emit,
            describe=describe,
            clock=clock,
            refresh=max_age / 2,
        )
        self._emit = emit
        self._note = note
        self._max_age = max_age
        self._clock = clock
        self._http: _HttpServer | None = None

    @property
    def port(self) -> int:
        """The port that is listened on; before ``start``, the one asked for."""
        return self._http.server_port if self._http else self._address[1]

    def start(self) -> None:
        """Listen. Raises ``OSError`` when the address is taken or not this machine's."""
        self._http = _HttpServer(self._address, self)
        self._reader.start()
        threading.Thread(
            target=self._http.serve_forever, args=(0.1,), name="metrics server", daemon=True
        ).start()

    def stop(self) -> None:
        """Stop listening. Answers under way, and a reading that hangs, are left behind."""
        if self._http is not None:
            self._reader.stop()
            self._http.shutdown()
            self._http.server_close()

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    def metrics(self, wanted: Format) -> bytes:
        """Return the body of ``/metrics``."""
        reading = self._reader.ask(wanted, PATIENCE)
        return self._reader.text(reading, wanted, self._clock())

    def health(self) -> tuple[HTTPStatus, dict[str, Any]]:
        """Return the status and document of ``/health``."""
        reading = self._reader.ask(Format.TEXT, PATIENCE)
        now = self._clock()
        age = reading.age_seconds(now)
        fresh = reading.idle_seconds(now) <= self._max_age.total_seconds()
        document = {
            "status": "ok" if fresh else "stale",
            "ledger_age_seconds": None if reading.snapshot is None else round(age, 3),
            **_last_run(reading),
        }
        return HTTPStatus.OK if fresh else HTTPStatus.SERVICE_UNAVAILABLE, document

    def note(self, text: str) -> None:
        """Pass on that a request was served."""
        if self._note is not None:
            self._note(text)

    def warn(self, text: str) -> None:
        """Pass on that something is wrong with serving itself."""
        self._emit(Warned(subject="metrics", text=text))


def _last_run(reading: Reading) -> dict[str, Any]:
    last = reading.snapshot.last_completed if reading.snapshot else None
    return {
        "last_run": last.run.id if last else None,
        "last_completion": last.finished_at.isoformat() if last and last.finished_at else None,
        "last_exit_code": last.exit_code if last else None,
    }


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], answers: MetricsServer) -> None:
        self.answers = answers
        self._places = threading.BoundedSemaphore(_PLACES)
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind, without the base class's look-up of the host's name, which may take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - socketserver's
        """Answer in a thread, if there is a place."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - socketserver's
        """Answer, and give the place back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 - socketserver's
        """Leave a client that is gone in peace; by default its traceback would go to stderr."""
        error = sys.exception()
        if not isinstance(error, OSError):
            self.answers.warn(f"a request could not be answered: {type(error).__name__}")


class _Bounded(socket.SocketIO):
    """Reads from a socket until a deadline: its own timeout begins anew with each byte."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        super().__init__(connection, "r")
        self._connection = connection
        self._deadline = time.monotonic() + seconds

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401 - the base class's
        """Read what has come, or wait for it."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return super().readinto(buffer)


class _Handler(BaseHTTPRequestHandler):
    server: _HttpServer
    server_version = "cronrunner"
    sys_version = ""
    timeout = _CLIENT_SECONDS

    def setup(self) -> None:
        """Bound the request as a whole."""
        super().setup()
        self.rfile.close()
        self.rfile = BufferedReader(_Bounded(self.connection, self.timeout))

    def do_GET(self) -> None:
        """Answer one of the two paths."""
        match urlsplit(self.path).path:
            case "/metrics":
                wanted = Format.accepted(self.headers.get("Accept", ""))
                self._send(HTTPStatus.OK, wanted.value, self.server.answers.metrics(wanted))
            case "/health":
                status, document = self.server.answers.health()
                self._send(status, "application/json", json.dumps(document).encode() + b"\n")
            case _:
                paths = b"There is /metrics and /health.\n"
                self._send(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", paths)

    do_HEAD = do_GET  # noqa: N815 - http.server's

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's
        """Note the request where the product's log lines are."""
        self.server.answers.note(format % args)

    def _send(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        # It bounds all of one write, however the client reads.
        self.connection.settimeout(self.timeout)
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        if gzip_accepted(self.headers.get("Accept-Encoding", "")):
            body = gzip.compress(body, compresslevel=1)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
