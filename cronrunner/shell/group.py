"""A script and all that it starts: begun, listened to, and ended together."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cronrunner.errors import ScriptError

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


@dataclass(slots=True)
class Output:
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


def _why(error: OSError, path: Path) -> str:
    """Tell a script that is not there from one whose interpreter is not."""
    if not isinstance(error, FileNotFoundError) or not path.exists():
        return error.strerror or str(error)
    with path.open("rb") as file:
        first = file.readline(_LINE).decode(errors="replace")
    # A line that ends like those of Windows shows why.
    return f"what its first line names is not there: {first.removesuffix(chr(10))!r}"


class Group:
    """A script and the processes that it starts."""

    def __init__(self, path: Path, environment: Mapping[str, str], output: Output) -> None:
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
            raise ScriptError(f"{path.name} cannot be started: {_why(error, path)}") from error
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
