"""Processes for work that may harm its own process: one request at a time, in a lane each.

A lane is a pool of one process, kept by pebble, which starts it, brings it requests and what they
come to, notices that it has died and starts another one. A lane of its own costs a few threads
that sleep, and buys that nothing which happens in one process touches another: one pipe and one
lock for all of them would have to survive a kill at any moment. A process is started when it is
first needed, and there are at most as many as requests at the same time.

What pebble has no word for is done here
    A process can say something before it has ended, and be answered: a pipe beside the pool's.
    It begins only when it is told to, so that a request that was given up is never performed.
    Every word bears the number of its request; what a dead process has left in the pipe is not
    taken for another's. A process that exits with 0 in mid-work is missed: for pebble it has
    ended well, so its pid is looked after as well.

Who ends a process
    ``Lane.kill``, the end of the run, and the kernel when the run's process is gone, however it
    went: each holds the read end of a pipe whose other end only the run has, and has asked for a
    SIGKILL when that is closed. A thread that watches would not come to it while a job holds the
    interpreter. SIGTERM and SIGINT are the run's to deal with: a terminal and a service manager
    send them to everybody, and a process of a job lets them pass.
"""

from __future__ import annotations

import faulthandler
import fcntl
import os
import signal
import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cronrunner.errors import ProcessDied

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

#: How often it is looked whether a silent process is still there.
_LOOK_EVERY_SECONDS: Final = 0.25
#: Signals that are meant for the run.
_FOR_THE_RUN: Final = (signal.SIGTERM, signal.SIGINT)

#: Takes a word of a process; what it returns, if anything, is the answer.
Take = Callable[[Any], object]
#: Performs a request in a process, by a name that can be imported there.
Call = Callable[[Any, "Line"], Any]


@dataclass(frozen=True, slots=True)
class _Began:
    """The process has a request and waits for leave to begin."""

    pid: int


class Processes:
    """The lanes of a run."""

    def __init__(self, call: Call, *, cpus: Collection[int]) -> None:
        """``cpus`` are those that processes may use, whatever a thread of this one may."""
        self._call = call
        self._cpus = frozenset(cpus)
        self._lock = threading.Lock()
        self._idle: list[Lane] = []
        self._all: set[Lane] = set()

    @contextmanager
    def lane(self) -> Iterator[Lane]:
        """Give a lane that nobody else uses meanwhile."""
        lane = self._take()
        try:
            yield lane
        finally:
            if lane.usable:
                with self._lock:
                    self._idle.append(lane)
            else:
                self._drop(lane)

    def _take(self) -> Lane:
        while True:
            with self._lock:
                if not self._idle:
                    lane = Lane(self._call, self._cpus)
                    self._all.add(lane)
                    return lane
                # The last one first: what is not needed any more is left in peace.
                lane = self._idle.pop()
            if lane.usable:
                return lane
            self._drop(lane)

    def _drop(self, lane: Lane) -> None:
        with self._lock:
            self._all.discard(lane)
        lane.stop()
        lane.join()

    def close(self) -> None:
        """Kill all processes."""
        with self._lock:
            lanes, self._idle, self._all = list(self._all), [], set()
        for lane in lanes:
            lane.stop()
        for lane in lanes:
            lane.join()


class Lane:
    """One process, and the next one after it has died."""

    def __init__(self, call: Call, cpus: frozenset[int]) -> None:
        # Half a dozen modules, and threads: only a run with isolated jobs pays for them.
        import multiprocessing  # noqa: PLC0415 - see above

        import pebble  # noqa: PLC0415 - see above

        # Nothing is lost by a process that dies at once: what it does is over, or given up.
        pebble.CONSTS.term_timeout = 0
        context = multiprocessing.get_context("spawn")
        self._expired = pebble.ProcessExpired
        self._near, self._far = context.Pipe()
        self._pool = pebble.ProcessPool(
            max_workers=1, context=context, initializer=_set_up, initargs=(self._far, cpus)
        )
        self._call = call
        self._number = 0
        self._lock = threading.Lock()
        self._pid: int | None = None
        self._future: Future[Any] | None = None
        self._given_up = False

    @property
    def usable(self) -> bool:
        """Tell whether another request can be made. A pool whose idle process died is broken."""
        return not self._given_up and bool(self._pool.active)

    def run(self, request: object, take: Take) -> Any:  # noqa: ANN401 - what the call returns
        """Perform a request in the process, giving each word that it says to ``take``.

        Raises ``ProcessDied``, and whatever the call raises.
        """
        self._number += 1
        with self._lock, _signals_blocked():
            # Threads and processes that are started here inherit what is blocked.
            future: Future[Any] = self._pool.schedule(
                _perform, args=(self._call, self._number, request)
            )
            self._future = future
        future.add_done_callback(self._wake)
        try:
            self._hear(future, take)
            return future.result(timeout=0)
        except self._expired as died:
            raise ProcessDied(_how(died.exitcode)) from None
        except (BrokenExecutor, CancelledError):
            raise ProcessDied("it ended before it had begun") from None
        finally:
            with self._lock:
                self._pid = self._future = None

    def kill(self) -> None:
        """Kill the process that performs the request, if one does; from another thread."""
        with self._lock:
            if self._future is None or self._future.done():
                return
            if self._pid is not None:
                # It is not another's yet: only pebble reaps it, and then the future is done.
                with suppress(ProcessLookupError):
                    os.kill(self._pid, signal.SIGKILL)
                return
            self._given_up = True
            future = self._future
        future.cancel()

    def stop(self) -> None:
        """Kill the process for good."""
        self.kill()
        self._given_up = True
        self._pool.stop()  # type: ignore[no-untyped-call] # pebble does not say None

    def join(self) -> None:
        """Wait until the process is gone, after ``stop``."""
        with suppress(OSError, RuntimeError):
            self._pool.join()

    def _hear(self, future: Future[Any], take: Take) -> None:
        """Take what the process says until the request is over."""
        silent_and_gone = False
        while not future.done():
            if self._near.poll(_LOOK_EVERY_SECONDS):
                number, word = self._near.recv()
                if number == self._number and word is not None:
                    self._answer(word, take)
            elif not self._is_there():
                # Once more: pebble, too, comes to know of it only now.
                if silent_and_gone and not future.done():
                    future.cancel()
                    raise ProcessDied(_how(0))
                silent_and_gone = True

    def _answer(self, word: object, take: Take) -> None:
        if isinstance(word, _Began):
            with self._lock:
                if self._given_up:
                    return
                self._pid = word.pid
            answer: object = True
        else:
            answer = take(word)
        if answer is not None:
            self._near.send((self._number, answer))

    def _is_there(self) -> bool:
        if self._pid is None:
            return not self._given_up
        try:
            os.kill(self._pid, 0)
        except ProcessLookupError:
            return False
        return True

    def _wake(self, _: Future[Any]) -> None:
        self._far.send((self._number, None))


class Line:
    """What a process has to say, and to ask, while it performs a request."""

    def __init__(self, connection: Connection, number: int) -> None:
        self._connection = connection
        self._number = number

    def say(self, word: object) -> None:
        """Say something that is not answered."""
        self._connection.send((self._number, word))

    def ask(self, word: object) -> Any:  # noqa: ANN401 - the answer to the word
        """Say something and wait for the answer."""
        self.say(word)
        while True:
            number, answer = self._connection.recv()
            if number == self._number:
                return answer


def _how(code: int | None) -> str:
    """Say how a process ended, by its exit code as Python has it: a signal is negative."""
    if code is None or code >= 0:
        return f"exit code {code or 0}"
    with suppress(ValueError):
        return f"signal {-code} ({signal.Signals(-code).name})"
    return f"signal {-code}"


@contextmanager
def _signals_blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _FOR_THE_RUN)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# In the process.

#: The pipe of this process, once it has one.
_connections: list[Connection] = []


def _set_up(connection: Connection, cpus: frozenset[int]) -> None:
    """Make this process ready, before its first request."""
    _die_with_the_run()
    # Where a crash came from; there may be no stderr to say it on.
    with suppress(AttributeError, OSError, RuntimeError, ValueError):
        faulthandler.enable()
    for each in _FOR_THE_RUN:
        # Not ignored: programs that a job starts would ignore them as well.
        signal.signal(each, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FOR_THE_RUN)
    if cpus:
        with suppress(OSError):
            os.sched_setaffinity(0, cpus)
    _connections[:] = [connection]


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


def _perform(call: Call, number: int, request: object) -> Any:  # noqa: ANN401 - what the call returns
    line = Line(_connections[0], number)
    line.ask(_Began(os.getpid()))
    return call(request, line)
