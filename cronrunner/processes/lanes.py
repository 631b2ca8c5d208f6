"""Processes for work that may harm its own process: one request at a time, in a lane each.

A lane is a pool of one process, kept by pebble, which starts it, brings it requests and what they
come to, notices that it has died and starts another one. A lane of its own costs a few threads
that sleep, and buys that nothing which happens in one process touches another: one pipe and one
lock for all of them would have to survive a kill at any moment. A process is started when it is
first needed, and there are at most as many as requests at the same time.

What pebble has no word for is done here
    A process can say something before it has ended, and be answered or told more: a socket
    beside the pool's. It begins only when it is told to, so that a request that was given up is
    never performed. Every word bears the number of its request; what a dead process has left in
    the socket is not taken for another's, and all that it had said is heard before it is found
    dead. What must not wait for a word is on a board, numbers in memory that both see. A process
    that exits with 0 in mid-work is missed: for pebble it has ended well, so its pid is looked
    after as well.

Who ends a process
    ``Lane.kill``, the end of the run, and the kernel when the run's process is gone, however it
    went: each holds the read end of a pipe whose other end only the run has, and has asked for a
    SIGKILL when that is closed. A thread that watches would not come to it while a job holds the
    interpreter. SIGTERM and SIGINT are the run's to deal with: a terminal and a service manager
    send them to everybody, and a process of a job lets them pass.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Future
from contextlib import contextmanager, suppress
from typing import Any, Final

from cronrunner.errors import ProcessDied
from cronrunner.processes.inside import FOR_THE_RUN, Began, Call, as_numbers, perform, set_up
from cronrunner.processes.wire import Wire

#: How often it is looked whether a silent process is still there.
_LOOK_EVERY_SECONDS: Final = 0.25

#: Takes a word of a process; what it returns, if anything, is the answer.
Take = Callable[[Any], object]


class Processes:
    """The lanes of a run."""

    def __init__(self, call: Call, *, cpus: Collection[int]) -> None:
        """``cpus`` are those that processes may use, whatever a thread of this one may."""
        self._call = call
        self._cpus = frozenset(cpus)
        self._lock = threading.Lock()
        self._idle: list[Lane] = []
        self._all: set[Lane] = set()

    def make(self, *, board: int) -> Lane:
        """Make a lane with a board of so many numbers, for whoever keeps it to the end."""
        lane = Lane(self._call, self._cpus, board)
        with self._lock:
            self._all.add(lane)
        return lane

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

    def __init__(self, call: Call, cpus: frozenset[int], board: int = 0) -> None:
        # Half a dozen modules, and threads: only a run with isolated jobs pays for them.
        import multiprocessing  # noqa: PLC0415 - see above

        import pebble  # noqa: PLC0415 - see above

        # Nothing is lost by a process that dies at once: what it does is over, or given up.
        pebble.CONSTS.term_timeout = 0
        context = multiprocessing.get_context("spawn")
        self._expired = pebble.ProcessExpired
        shared = context.RawArray("Q", board) if board else None
        #: What both see at once, and what is left of a process that has died.
        self.board = memoryview(b"") if shared is None else as_numbers(shared)
        near, far = context.Pipe()
        self._near, self._far = Wire(near), Wire(far)
        self._pool = pebble.ProcessPool(
            max_workers=1, context=context, initializer=set_up, initargs=(far, cpus, shared)
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

    @property
    def number(self) -> int:
        """The number of the request that is, or was last, performed."""
        return self._number

    def tell(self, number: int, word: object) -> None:
        """Say something to the process that performs request ``number``; from any thread.

        It must have said something before: until then it only waits for leave to begin. If it is
        another one's turn by now, nobody hears of it.
        """
        self._near.send(number, word)

    def run(self, request: object, take: Take, *, after: Callable[[], None] = lambda: None) -> Any:  # noqa: ANN401 - what the call returns
        """Perform a request in the process, giving each word that it says to ``take``.

        ``after`` is called when all that was there to be heard has been taken. Raises
        ``ProcessDied``, and whatever the call raises.
        """
        self._number += 1
        with self._lock, _signals_blocked():
            # Threads and processes that are started here inherit what is blocked.
            future: Future[Any] = self._pool.schedule(
                perform, args=(self._call, self._number, request)
            )
            self._future = future
        future.add_done_callback(self._wake)
        try:
            self._hear(future, take, after)
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

    def _hear(self, future: Future[Any], take: Take, after: Callable[[], None]) -> None:
        """Take what the process says until the request is over."""
        silent_and_gone = False
        while True:
            words = self._near.receive(_LOOK_EVERY_SECONDS)
            for number, word in words:
                if number == self._number:
                    if word is None:
                        return
                    self._answer(word, take)
            if words:
                after()
            elif not self._is_there():
                # Once more: pebble, too, comes to know of it only now.
                if silent_and_gone and not future.done():
                    future.cancel()
                    raise ProcessDied(_how(0))
                silent_and_gone = True

    def _answer(self, word: object, take: Take) -> None:
        if isinstance(word, Began):
            with self._lock:
                if self._given_up:
                    return
                self._pid = word.pid
            answer: object = True
        else:
            answer = take(word)
        if answer is not None:
            self._near.send(self._number, answer)

    def _is_there(self) -> bool:
        if self._pid is None:
            return not self._given_up
        try:
            os.kill(self._pid, 0)
        except ProcessLookupError:
            return False
        return True

    def _wake(self, _: Future[Any]) -> None:
        self._far.end(self._number)


def _how(code: int | None) -> str:
    """Say how a process ended, by its exit code as Python has it: a signal is negative."""
    if code is None or code >= 0:
        return f"exit code {code or 0}"
    with suppress(ValueError):
        return f"signal {-code} ({signal.Signals(-code).name})"
    return f"signal {-code}"


@contextmanager
def _signals_blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, FOR_THE_RUN)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
