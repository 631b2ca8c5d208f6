"""An HTTP server in a thread, which answers as it is told and remembers what it was asked."""

import json
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from tests.servers.process import HOST


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    status: int = 200
    body: bytes = b"ok"
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Says nothing for so long.
    after_seconds: float = 0.0
    #: Sends this as it is, and hangs up.
    raw: bytes | None = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_: object) -> None:
        """Say nothing: whoever asked has hung up."""


class HttpServer:
    """Answers on a free port of the loopback until it is closed."""

    def __init__(self, *, certificates: Path | None = None) -> None:
        """Speak TLS with `server.pem` and `server.key` of a folder, if one is given."""
        self.asked: list[Asked] = []
        #: Connections that were accepted.
        self.connections = 0
        self._answers: dict[str, list[Answer] | Callable[[Asked], Answer]] = {}
        self._closing = threading.Event()
        self._server = _Server((HOST, 0), self._talker())
        if certificates is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._scheme = "http" if certificates is None else "https"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def url(self, path: str = "/") -> str:
        return f"{self._scheme}://{HOST}:{self._server.server_port}{path}"

    def answer(self, path: str, *answers: Answer | Callable[[Asked], Answer]) -> None:
        """Answer a path so: one after another, and the last one from then on."""
        first = answers[0]
        if callable(first):
            self._answers[path] = first
        else:
            self._answers[path] = [each for each in answers if isinstance(each, Answer)]

    def asked_at(self, path: str) -> list[Asked]:
        return [each for each in self.asked if each.path == path]

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer_to(self, asked: Asked) -> Answer:
        answers = self._answers.get(asked.path)
        if answers is None:
            return Answer()
        if callable(answers):
            return answers(asked)
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def _talker(server) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - `self` is the one below
        class Talker(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                server.connections += 1
                super().setup()

            def talk(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked = Asked(self.command, self.path, dict(self.headers.items()), body)
                server.asked.append(asked)
                answer = server._answer_to(asked)
                until = time.monotonic() + answer.after_seconds
                while time.monotonic() < until and not server._closing.wait(0.02):
                    pass
                try:
                    self.give(answer)
                except OSError:  # whoever asked does not wait any more
                    self.close_connection = True

            def give(self, answer: Answer) -> None:
                if answer.raw is not None:
                    self.wfile.write(answer.raw)
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer.body)

            do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = talk  # noqa: N815

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Talker
