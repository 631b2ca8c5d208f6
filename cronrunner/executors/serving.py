"""In a process of a run: visits in its threads, and the run is told what becomes of them.

The threads are those of a ``ThreadExecutor``; what is queued, repeated, or left of a visit is the
run's affair. Each result is said before the next job of its visit begins, so that a job which
takes the process down takes nobody else's result with it; the last one is said together with the
end of the visit. Before a job begins that is noted on the board, and whether the run drains is
read there.
"""

from __future__ import annotations

import itertools
import queue
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from cronrunner.events import Event, ExecutionStarted, VisitFinished
from cronrunner.executors.base import Perform
from cronrunner.executors.breaking import Breakers
from cronrunner.executors.threads import ThreadExecutor
from cronrunner.executors.words import (
    Board,
    Broke,
    Cancel,
    Drain,
    End,
    Ended,
    GiveBack,
    Handed,
    Kill,
    Killed,
    Learn,
    Over,
    Reached,
    Ready,
    Started,
    Stuck,
    Told,
    Visits,
    Written,
    pack_result,
    unpack_visit,
)
from cronrunner.model import Result, Tenant, VisitRequest


class Wire(Protocol):
    """What a process has of the run."""

    @property
    def board(self) -> memoryview:
        """What both see at once."""

    def say(self, word: object) -> None:
        """Say something; any thread may."""

    def hear(self) -> Any:  # noqa: ANN401 - a word of the run
        """Wait for the next word of the run."""


class _Here(threading.local):
    """What the calling thread is at."""

    visit: Handed | None = None
    #: How long the visit took.
    seconds: float | None = None


class Serving:
    """Makes the visits that the run hands over. Listener of the process's events."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._board = Board(wire.board)
        self._prompt = False
        self._here = _Here()
        #: Place -> the visit that has it, until it is over or abandoned.
        self._at: dict[int, Handed] = {}
        #: Place -> the last result of its visit, if it has not been said yet.
        self._unsaid: dict[int, list[tuple[Any, ...]]] = {}
        self._drained = threading.Event()
        self._tickets = itertools.count()
        self._asked: dict[int, queue.SimpleQueue[bool | None]] = {}
        self._executor: _Threads | None = None

    def run(  # noqa: PLR0913 - each has a name of its own
        self,
        perform: Perform,
        *,
        threads: int,
        servers: Iterable[str],
        cancel: Callable[[], None],
        learn: Callable[[Any], None],
        prompt: bool = False,
    ) -> None:
        """Make visits until the run says that it is over.

        ``cancel`` lets all deadlines expire, ``learn`` takes what visits are going to ask for.
        With ``prompt`` the beginning of each attempt is said at once: somebody reads of it.
        """
        self._prompt = prompt
        executor = self._executor = _Threads(
            lambda visit: self._make(perform, visit),
            concurrency=threads,
            permits=dict.fromkeys(servers, threads),
        )
        self._say(Ready())
        try:
            self._heed(executor, cancel, learn)
        finally:
            executor.drain()
            executor.close()

    def _heed(
        self, executor: _Threads, cancel: Callable[[], None], learn: Callable[[Any], None]
    ) -> None:
        while True:
            for word in self._wire.hear():
                match word:
                    case Visits(packed):
                        self._take(executor, map(unpack_visit, packed))
                    case Learn(what):
                        learn(what)
                    case GiveBack():
                        self._give_back(executor)
                    case Drain():
                        self._drained.set()
                        executor.drain()
                        self._give_back(executor)
                    case Cancel():
                        cancel()
                    case Killed(ticket, answer):
                        self._asked.pop(ticket).put(answer)
                    case End():
                        return

    def _take(self, executor: _Threads, visits: Iterable[Handed]) -> None:
        taken = list(visits)
        for visit in taken:
            self._at[visit.place] = visit
        executor.submit(taken)

    def _give_back(self, executor: _Threads) -> None:
        visits = executor.take_back()
        for visit in visits:
            self._at.pop(visit.place, None)
        # Not by the thread that listens: if it waited for the run, which may wait to be heard,
        # nothing would move any more.
        said = tuple(Over(visit.place, None) for visit in visits)
        threading.Thread(target=self._say, args=said, daemon=True).start()

    # In a thread of a visit.

    def _make(self, perform: Perform, visit: VisitRequest) -> Iterator[Result]:
        """Make the attempts of a visit, and say what becomes of them."""
        if not isinstance(visit, Handed):
            raise TypeError(type(visit).__name__)
        here, unsaid = self._here, list[tuple[Any, ...]]()
        here.visit, here.seconds = visit, None
        self._unsaid[visit.place] = unsaid
        attempts = perform(visit)
        try:
            for index in range(len(visit.requests)):
                if not self._may_begin(visit, index):
                    return
                result = next(attempts)
                if not self._is_mine(visit):
                    return
                unsaid.append(pack_result(result))
                yield result
        except BaseException as error:
            self._break(error)
            raise
        finally:
            attempts.close()  # type: ignore[attr-defined] # a generator: it ends the visit
            if self._is_mine(visit):
                del self._at[visit.place]
                self._say(Over(visit.place, here.seconds, *unsaid))
            here.visit = None

    def _may_begin(self, visit: Handed, index: int) -> bool:
        if self._board.is_draining:
            self._drain()
            return False
        unsaid = self._unsaid[visit.place]
        if unsaid:
            # It may be the last that this process has to say.
            self._say(Ended(visit.place, unsaid.pop()))
        self._board.begin(visit.place, index + 1)
        return True

    def _is_mine(self, visit: Handed) -> bool:
        """Tell whether a visit still has its place: one that was abandoned says nothing more."""
        return self._at.get(visit.place) is visit

    def _drain(self) -> None:
        if self._executor is not None:
            self._executor.drain()

    def _break(self, error: BaseException) -> None:
        if isinstance(error, GeneratorExit):
            return
        # What this visit has not said may have been done: nobody begins anything more.
        self._board.drain()
        self._say(Broke(type(error).__name__))

    def _say(self, *words: object) -> None:
        if words:
            self._wire.say(words)

    # What is told by whoever performs a visit.

    def on(self, event: Event) -> None:
        """Tell the run of an event."""
        here = self._here
        visit = here.visit
        match event:
            case ExecutionStarted() if visit is not None:
                if self._prompt and self._is_mine(visit):
                    self._say(Started(visit.place))
            case VisitFinished(seconds=seconds):
                here.seconds = seconds
            case _:
                self._say(Told(event))

    def opened(self, number: int) -> None:
        """Note the server's number of a session that the calling thread has opened."""
        visit = self._here.visit
        if visit is not None and self._is_mine(visit):
            self._board.open(visit.place, number)

    def reached(self, tenant: Tenant) -> None:
        """Take note that the calling thread's visit has its session."""
        del tenant
        visit = self._here.visit
        if visit is not None and visit.is_awaited and self._is_mine(visit):
            self._say(Reached(visit.place))

    def stuck(self, result: Result) -> None:
        """Say that an attempt cannot be ended, and go on without its thread."""
        executor = self._executor
        for visit in list(self._at.values()):
            if result.request in visit.requests and executor is not None:
                self._at.pop(visit.place, None)
                self._say(Stuck(visit.place, pack_result(result)))
                executor.abandon(result.request)

    def kill(self, server: str, number: int, *, sever: bool) -> bool | None:
        """Have the run end a statement, or a session, at its server; see ``Canceller``.

        There is one connection for it in a run, however many processes it has. The answer is
        awaited for as long as it takes: no session goes on with a kill in flight.
        """
        ticket = next(self._tickets)
        answer = self._asked[ticket] = queue.SimpleQueue()
        self._say(Kill(ticket, server, number, sever))
        return answer.get()

    def write(self, line: str) -> None:
        """Write a line of the log: by the run, so that it stays whole among the others."""
        self._say(Written(line))

    def pause(self, delay: timedelta) -> None:
        """Wait, but not beyond the beginning of a drain."""
        until = time.monotonic() + delay.total_seconds()
        while not self._board.is_draining and (left := until - time.monotonic()) > 0:
            self._drained.wait(min(left, 0.1))


class _Threads(ThreadExecutor):
    """The threads of a process. What is left of a visit is queued by the run, and not here."""

    def __init__(self, perform: Perform, *, concurrency: int, permits: Mapping[str, int]) -> None:
        nothing = Breakers({}, rng=random.Random(0), clock=_now, emit=lambda _: None)  # noqa: S311 - never drawn
        super().__init__(
            perform, lambda _: None, concurrency=concurrency, permits=permits, breakers=nothing
        )

    def _again(self, visit: VisitRequest) -> None:
        """Leave it to the run."""

    def take_back(self) -> list[Handed]:
        """Return the visits that have not begun, and forget them."""
        return [visit for visit in self._take_back() if isinstance(visit, Handed)]


def _now() -> datetime:
    return datetime.now(UTC)
