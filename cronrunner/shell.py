"""Scripts: one attempt of a job that is an executable file.

The script is the leader of a process group of its own, without a terminal. It is told what it is to
do by environment variables; the password is in files that only its user can read and that are gone
when it has ended: neither a command line nor an environment, which ``ps`` shows, ever holds it.

==========================================  =================================================
what happens                                outcome
==========================================  =================================================
exit status 0                               ``succeeded``
75 (EX_TEMPFAIL)                            ``failed``, and worth repeating
77 (what test harnesses take for it)        ``skipped`` by the job
any other, a signal, it cannot be started   ``failed``, with the last line of its stderr
the deadline, or a drain                    TERM for its group, a second later KILL
it ends and leaves processes in its group   the same for those: a visit that is over is over
one of those keeps a pipe open              nobody waits for it
==========================================  =================================================

Its output is read as it comes, so that no pipe is ever full, and logged within limits.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from urllib.parse import quote

from cronrunner.errors import DeadlineError, Retry, ScriptError, Skip
from cronrunner.model import format_instant

#: Statuses with a meaning.
RETRY: Final = 75
SKIP: Final = 77
_PORT: Final = 3306
#: Seconds from TERM to KILL.
_PATIENCE: Final = 1.0
#: Seconds between two looks at what cannot be waited for together with the pipes.
_TICK: Final = 0.02
_CHUNK: Final = 65_536
#: Bytes that are still read when the script has ended, whoever goes on writing.
_REST: Final = 16 * _CHUNK
#: Bytes of a line, and lines of an attempt, that are logged.
_LINE: Final = 1000
_LINES: Final = 1000
#: A secret that is shorter is taken out of the environment only where it is a whole value.
_WORD: Final = 4


def run_script(
    ctx: Any,  # noqa: ANN401 - a JobContext, a layer above
    path: Path,
    *,
    folder: Path = Path(),
    withheld: Iterable[str] = (),
) -> None:
    """Run the script at ``path`` on the tenant of a context.

    Paths of SQLite files begin at ``folder``; no variable of the script holds a text of
    ``withheld``. Raises ``ScriptError``, ``Retry``, ``Skip`` and ``DeadlineError``.
    """
    url = ctx.engine.url
    with _credentials(url) as files:
        inherited = _without(withheld, os.environ)
        environment = {**inherited, **_words(ctx), **_database(url, folder), **files}
        group = _Group(path, environment, _Output(ctx.log))
        status = group.run(ctx.ending.is_set)
    if status is None:
        raise DeadlineError
    _judge(status, group.output)


def _without(withheld: Iterable[str], environ: Mapping[str, str]) -> dict[str, str]:
    secrets = {form for each in withheld if each for form in (each, quote(each, safe=""))}
    return {
        name: value
        for name, value in environ.items()
        if value not in secrets
        and not any(len(each) >= _WORD and each in value for each in secrets)
    }


def _database(url: Any, folder: Path) -> dict[str, str]:  # noqa: ANN401 - a SQLAlchemy URL
    if url.get_backend_name() == "sqlite":
        path = (folder / (url.database or "")).absolute()
        return {"CRONRUNNER_KIND": "sqlite", "CRONRUNNER_DATABASE": str(path)}
    return {
        "CRONRUNNER_KIND": "mysql",
        "CRONRUNNER_DATABASE": url.database or "",
        "CRONRUNNER_HOST": url.host or "localhost",
        "CRONRUNNER_PORT": str(url.port or _PORT),
        "CRONRUNNER_USER": url.username or "",
    }


def _words(ctx: Any) -> dict[str, str]:  # noqa: ANN401 - as above
    return {
        "CRONRUNNER_JOB": ctx.job,
        "CRONRUNNER_TENANT": ctx.tenant.name,
        "CRONRUNNER_SERVER": ctx.tenant.server,
        "CRONRUNNER_TIMEZONE": ctx.tenant.timezone,
        "CRONRUNNER_SLOT": format_instant(ctx.slot),
        "CRONRUNNER_RUN": ctx.run,
        "CRONRUNNER_ATTEMPT": str(ctx.attempt),
        "CRONRUNNER_DRY_RUN": _written(ctx.dry_run),
        "CRONRUNNER_IDEMPOTENCY_KEY": ctx.idempotency_key,
        **{
            f"CRONRUNNER_OPTION_{name.upper()}": _written(value)
            for name, value in ctx.options.items()
        },
    }


def _written(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


@contextmanager
def _credentials(url: Any) -> Iterator[Mapping[str, str]]:  # noqa: ANN401 - a SQLAlchemy URL
    """Keep the password in files as long as the context lasts; give variables with their names."""
    if url.get_backend_name() == "sqlite":
        yield {}
        return
    password = "" if url.password is None else str(url.password)
    options = {
        "host": url.host or "localhost",
        "port": str(url.port or _PORT),
        # The clients would take a socket for `localhost`.
        "protocol": "tcp",
        "user": url.username or "",
        "password": password,
    }
    lines = [f"{name}={_quoted(value)}\n" for name, value in options.items() if value]
    with TemporaryDirectory(prefix="cronrunner-", ignore_cleanup_errors=True) as folder:
        yield {
            "CRONRUNNER_PASSWORD_FILE": _secret_file(Path(folder, "password"), password),
            "CRONRUNNER_MYSQL_DEFAULTS": _secret_file(
                Path(folder, "my.cnf"), "".join(["[client]\n", *lines])
            ),
        }


def _quoted(value: str) -> str:
    """Write a value as option files of MySQL have it."""
    for char, written in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r")):
        value = value.replace(char, written)
    return f'"{value}"'


def _secret_file(path: Path, text: str) -> str:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    return str(path)


def _judge(status: int, output: _Output) -> None:
    """Raise what an exit status means."""
    last = output.last["stderr"] or output.last["stdout"]
    match status:
        case 0:
            return
        case _ if status == RETRY:
            raise Retry(last or f"the script asks for it by its exit status {RETRY}")
        case _ if status == SKIP:
            raise Skip(last or f"the script says so by its exit status {SKIP}")
    by = f"ended by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    said = output.last["stderr"]
    raise ScriptError(f"{by}: {said}" if said else by)


@dataclass(slots=True)
class _Output:
    """Logs what a script writes, line by line."""

    log: Any
    #: Stream -> its last line that is not blank.
    last: dict[str, str] = field(default_factory=lambda: {"stdout": "", "stderr": ""})
    _open: dict[str, bytes] = field(default_factory=lambda: {"stdout": b"", "stderr": b""})
    _count: int = 0

    def take(self, stream: str, data: bytes) -> None:
        """Take what was read; a line is logged when it has ended."""
        *lines, rest = (self._open[stream] + data).split(b"\n")
        # A line that never ends takes no memory.
        self._open[stream] = rest[: _LINE + 1]
        for line in lines:
            self._tell(stream, line)

    def end(self) -> None:
        """Log what was begun, and how much was not logged."""
        for stream, rest in self._open.items():
            self._tell(stream, rest)
        if (more := self._count - _LINES) > 0:
            self.log.warning("the script has written more than is logged", lines_left_out=more)

    def _tell(self, stream: str, line: bytes) -> None:
        text = line[:_LINE].decode(errors="replace").strip()
        if not text:
            return
        self.last[stream] = text
        self._count += 1
        if self._count <= _LINES:
            self.log.info(f"{text} ..." if len(line) > _LINE else text, stream=stream)


class _Group:
    """A script and the processes that it starts."""

    def __init__(self, path: Path, environment: Mapping[str, str], output: _Output) -> None:
        """Start it. Raises ``ScriptError``."""
        self.output = output
        try:
            self._process = subprocess.Popen(  # noqa: S603 - a job of the folder
                [path.absolute()],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise ScriptError(f"{path.name} cannot be started: {error.strerror}") from error
        self._pipes = selectors.DefaultSelector()
        for name in ("stdout", "stderr"):
            pipe = getattr(self._process, name)
            os.set_blocking(pipe.fileno(), False)
            self._pipes.register(pipe, selectors.EVENT_READ, name)

    def run(self, is_over: Callable[[], bool]) -> int | None:
        """Wait for the script; return its status, or ``None`` when it was ended before."""
        was_over = False
        try:
            while not self._has_ended() and not was_over:
                self._read()
                was_over = is_over()
        finally:
            self._end()
        return None if was_over else self._process.returncode

    def _has_ended(self) -> bool:
        """Tell whether the script has ended, without giving up its number.

        As long as the number is not free, the group of that number is no other's.
        """
        if self._process.returncode is not None:
            return True
        how = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self._process.pid, how) is not None

    def _end(self) -> None:
        """End what is left of the group, and close the pipes, whoever holds their other ends."""
        had_ended = self._has_ended()
        self._send(signal.SIGTERM)
        until = time.monotonic() + _PATIENCE
        while (is_left := not self._is_gone()) and time.monotonic() < until:
            self._read()
        if is_left:
            self._send(signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_PATIENCE)
        if is_left and had_ended:
            self.output.log.warning("the script has left processes behind; they were ended")
        self._read_rest()

    def _is_gone(self) -> bool:
        """Tell whether nobody is left, the script included."""
        return self._has_ended() and self._process.wait() is not None and not self._send(0)

    def _send(self, number: int) -> bool:
        """Send a signal to the group; tell whether there was somebody."""
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return False
        except PermissionError:
            # Of another user by now.
            return True
        return True

    def _read(self) -> None:
        """Read what is there, or wait for a moment."""
        if not self._pipes.get_map():
            time.sleep(_TICK)
        for key, _ in self._pipes.select(_TICK):
            self._read_one(key)

    def _read_one(self, key: selectors.SelectorKey) -> int:
        try:
            data = os.read(key.fd, _CHUNK)
        except BlockingIOError:
            return 0
        self.output.take(key.data, data)
        if not data:
            self._pipes.unregister(key.fileobj)
        return len(data)

    def _read_rest(self) -> None:
        for key in list(self._pipes.get_map().values()):
            left = _REST
            while left > 0 and (taken := self._read_one(key)):
                left -= taken
        self._pipes.close()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        self.output.end()
