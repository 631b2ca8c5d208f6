"""Commands as a user would type them: shown, and really run."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from cronrunner.model import EMPTY
from cronrunner.registry.finding import find_jobs

ROOT: Final = Path(__file__).resolve().parents[1]
HOST: Final = "127.0.0.1"
#: Where the demo's commands find the URL of a store, which may hold a password.
URL_VARIABLE: Final = "DEMO_URL"

#: What `tenants.yaml` lets the environment say about the log.
_LOG_FORMAT: Final = "LOG_FORMAT"
_LOG_LEVEL: Final = "LOG_LEVEL"
#: Lines that are shown of a log.
_LOG_LINES: Final = 2
_COMMAND: Final = Path(sys.executable).with_name("cronrunner")
_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 10.0


class Terminal:
    """Runs commands in the project's folder, with one configuration."""

    def __init__(self, config: Path, secrets: Mapping[str, str]) -> None:
        read = _read_by_jobs()
        # A demo looks alike everywhere, and what it sends stays here.
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("CRONRUNNER_") and name not in read
        }
        self._environment = {**kept, **secrets, "CRONRUNNER_CONFIG": str(config)}
        if config != ROOT / "tenants.yaml":
            self.typed(f"export CRONRUNNER_CONFIG={os.path.relpath(config, ROOT)}")

    def heading(self, text: str) -> None:
        """Begin a part of the demo."""
        print(f"\n\033[1m── {text}\033[0m" if sys.stdout.isatty() else f"\n── {text}", flush=True)

    def typed(self, line: str) -> None:
        """Show a line behind a prompt."""
        print(f"$ {line}", flush=True)

    def run(self, *arguments: str, log: Path, lines: int | None = None) -> int:
        """Show and do a run over the fleet; return its exit code.

        On a terminal it draws its progress, and logs only what is bad: jobs say thousands of
        things. Elsewhere its log is JSON: it goes to a file, of which the last lines are shown.
        With ``lines`` only these of its summary are shown.
        """
        command = shlex.join(["cronrunner", *arguments])
        end = f" | head -n {lines}" if lines else ""
        streams: dict[str, Any] = {"stdout": subprocess.PIPE} if lines else {}
        if sys.stderr.isatty():
            self.typed(f"{_LOG_LEVEL}=error {command}{end}")
            done = self._call(arguments, {_LOG_LEVEL: "error"}, **streams)
        else:
            shown = os.path.relpath(log, ROOT)
            self.typed(f"{command} 2>{shown}{end}")
            with log.open("wb") as file:
                done = self._call(arguments, stderr=file, **streams)
        if lines:
            print("\n".join(done.stdout.decode().splitlines()[:lines]), flush=True)
        elif not sys.stderr.isatty():
            self._show_end(log)
        return done.returncode

    def _show_end(self, log: Path) -> None:
        self.typed(f"tail -n {_LOG_LINES} {os.path.relpath(log, ROOT)}")
        print("\n".join(log.read_text().splitlines()[-_LOG_LINES:]), flush=True)

    def cronrunner(self, *arguments: str, readable: bool = False) -> None:
        """Show and run a command; if ``readable``, its log is for people wherever it goes."""
        command = shlex.join(["cronrunner", *arguments])
        said: dict[str, str] = {}
        if readable and not sys.stdout.isatty():
            command = f"{_LOG_FORMAT}=console {command}"
            said = {_LOG_FORMAT: "console"}
        self.typed(command)
        self._call(arguments, said, stderr=subprocess.STDOUT)

    def ask(self, *arguments: str) -> Any:  # noqa: ANN401 - a JSON document
        """Run the command out of sight and return the JSON that it prints."""
        done = self._call([*arguments, "--json"], stdout=subprocess.PIPE)
        done.check_returncode()
        return json.loads(done.stdout)

    def _call(
        self,
        arguments: Sequence[str],
        said: Mapping[str, str] = EMPTY,
        **streams: Any,  # noqa: ANN401 - as subprocess takes them
    ) -> subprocess.CompletedProcess[bytes]:
        environment = {**self._environment, **said}
        return subprocess.run(
            [_COMMAND, *arguments], cwd=ROOT, env=environment, check=False, **streams
        )

    @contextmanager
    def locks(self, names: Sequence[str], url: str, table: str) -> Iterator[None]:
        """Hold locks on tenants in a process of its own."""
        if not names:
            yield
            return
        with subprocess.Popen(
            [sys.executable, "-m", "demo", "lock", *names, "--table", table, "--for", "10m"],
            cwd=ROOT,
            env={**os.environ, URL_VARIABLE: url},
            stdout=subprocess.PIPE,
            text=True,
        ) as holder:
            try:
                for name in names:
                    if holder.stdout is None or not holder.stdout.readline():
                        msg = f"expected a lock on {name}; the process that should hold it ended"
                        raise RuntimeError(msg)
                yield
            finally:
                _end(holder)

    def metrics(self, lines: int) -> str:
        """Serve and fetch ``/metrics``; return its first lines."""
        port = str(_free_port())
        address = f"http://{HOST}:{port}/metrics"
        self.typed(f"cronrunner serve --port {port} &")
        with subprocess.Popen(
            [_COMMAND, "serve", "--port", port], cwd=ROOT, env=self._environment
        ) as server:
            try:
                body = _fetch(address, server)
            finally:
                _end(server)
        self.typed(f"curl -s {address} | head -n {lines}")
        return "\n".join(body.splitlines()[:lines])


def _read_by_jobs() -> set[str]:
    """Return the variables that options of shipped jobs, or the configuration, are read from."""
    jobs = find_jobs(ROOT / "jobs").jobs.values()
    options = (option for job in jobs for option in job.options.values())
    return {option.environment for option in options if option.environment} | {
        _LOG_FORMAT,
        _LOG_LEVEL,
    }


def _free_port() -> int:
    with closing(socket.create_server((HOST, 0))) as taken:
        port: int = taken.getsockname()[1]
        return port


def _fetch(address: str, server: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(address, timeout=_START_SECONDS) as answer:  # noqa: S310 - the loopback
                text: str = answer.read().decode()
                return text
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _end(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
