"""In a process: it is made ready once, and performs one request at a time."""

from __future__ import annotations

import faulthandler
import fcntl
import os
import signal
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cronrunner.processes.wire import Wire

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

#: Signals that are meant for the run.
FOR_THE_RUN: Final = (signal.SIGTERM, signal.SIGINT)

#: Performs a request in a process, by a name that can be imported there.
Call = Callable[[Any, "Line"], Any]


@dataclass(frozen=True, slots=True)
class Began:
    """The process has a request and waits for leave to begin."""

    pid: int


class Line:
    """What a process has to say, and to ask, while it performs a request."""

    def __init__(self, wire: Wire, number: int, board: memoryview | None) -> None:
        self._wire = wire
        self._number = number
        self._heard: deque[Any] = deque()
        self._board = board

    @property
    def board(self) -> memoryview:
        """Numbers that the run sees at once, and still sees when this process has died."""
        if self._board is None:
            raise LookupError("this lane was made without a board")
        return self._board

    def say(self, word: object) -> None:
        """Say something that is not answered. Any thread may."""
        self._wire.send(self._number, word)

    def ask(self, word: object) -> Any:  # noqa: ANN401 - the answer to the word
        """Say something and wait for the answer."""
        self.say(word)
        return self.hear()

    def hear(self) -> Any:  # noqa: ANN401 - whatever the run says
        """Wait for the next word of the run about this request."""
        while not self._heard:
            words = self._wire.receive()
            self._heard.extend(word for number, word in words if number == self._number)
        return self._heard.popleft()


@dataclass(slots=True)
class _Ends:
    """What this process has been given."""

    wire: Wire
    board: memoryview | None


#: Empty until the process is ready.
_given: list[_Ends] = []


def set_up(connection: Connection, cpus: frozenset[int], board: Any) -> None:  # noqa: ANN401 - a shared array
    """Make this process ready, before its first request."""
    _die_with_the_run()
    # Where a crash came from; there may be no stderr to say it on.
    with suppress(AttributeError, OSError, RuntimeError, ValueError):
        faulthandler.enable()
    with suppress(AttributeError, ValueError):
        # What is printed is not lost with the process.
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr] # unless replaced
    for each in FOR_THE_RUN:
        # Not ignored: programs that a job starts would ignore them as well.
        signal.signal(each, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FOR_THE_RUN)
    if cpus:
        with suppress(OSError):
            os.sched_setaffinity(0, cpus)
    _given[:] = [_Ends(Wire(connection), None if board is None else as_numbers(board))]


def as_numbers(board: Any) -> memoryview:  # noqa: ANN401 - a shared array of 64 bits each
    """Return the numbers of a board, to be read and written."""
    return memoryview(board).cast("B").cast("Q")


def _die_with_the_run() -> None:
    """Let the kernel kill this process when the run's end of their pipe is closed."""
    from multiprocessing import parent_process  # noqa: PLC0415 - it is there by now
    from multiprocessing.connection import wait  # noqa: PLC0415 - it is there by now

    parent = parent_process()
    if parent is None:
        return
    pipe = parent.sentinel
    fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    if wait([pipe], timeout=0):
        os._exit(1)


def perform(call: Call, number: int, request: object) -> Any:  # noqa: ANN401 - what the call returns
    """Perform a request when the run gives leave to."""
    (given,) = _given
    line = Line(given.wire, number, given.board)
    line.ask(Began(os.getpid()))
    return call(request, line)
