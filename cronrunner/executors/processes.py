"""Visits in processes of the run, so that a run uses more than one CPU.

The run's process decides and records: queues, permits, breakers, repetitions and results are here,
and a process has none of them. It is handed visits, makes them in threads of its own
(``serving``), and says what becomes of them. A visit has its permit from when it is handed over
until its process says that it is over.

Who gets how much
    A process is handed as many visits as it has threads, and so many more as it will begin
    within some milliseconds, going by its last ones: it does not wait for the run between two
    short visits, and a long one has nobody waiting behind it. What waits all the same while
    another process has a thread to spare is asked back.

What happens to a process                   outcome
==========================================  =================================================
it dies: an exit, a signal, the memory, a   what had begun is ``failed`` with ``ProcessDied``,
thread that holds the interpreter for a     the rest goes back to the queue; its sessions are
grace                                       ended at the server; it is started again
it dies three times with nothing done, or   it is given up; if it was the last one, so is the
cannot be made                              run
a drain begins                              it reads that on its board before it begins anything
==========================================  =================================================

What belongs to the fleet, and what is left out for a hopeless server, is done in threads of the
run's process.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from cronrunner.errors import ProcessDied
from cronrunner.events import ExecutionStarted, VisitFinished, Warned
from cronrunner.executors.base import OnResult, Perform
from cronrunner.executors.breaking import Breakers
from cronrunner.executors.far import Crew, FarTurn, Outside, Process
from cronrunner.executors.threads import ThreadExecutor
from cronrunner.executors.turns import BrokenVisitError, Turn
from cronrunner.executors.words import (
    Board,
    Broke,
    Cancel,
    Drain,
    End,
    Ended,
    GiveBack,
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
    may_be_repeated,
    pack_visit,
    unpack_result,
)
from cronrunner.model import FLEET, Request, Result, VisitRequest

#: How often processes are looked after: delayed visits, what waits in the wrong place, a drain.
_TICK_SECONDS: Final = 0.05
#: Times that a process may die with nothing done.
_PATIENCE: Final = 3
#: How long processes may take to let go at the end.
_LETTING_GO_SECONDS: Final = 1.0


class ProcessExecutor(ThreadExecutor):
    """Carries out visits of tenants in processes, and those of the fleet in threads."""

    def __init__(  # noqa: PLR0913 - what it takes
        self,
        perform: Perform,
        on_result: OnResult,
        outside: Outside,
        crews: Sequence[Crew],
        *,
        permits: Mapping[str, int],
        breakers: Breakers,
        parted: Collection[str] = frozenset(),
    ) -> None:
        """``perform`` makes the visits of the fleet.

        The permits of servers in ``parted`` are parted among the processes: each keeps sessions
        there, which nobody else could use.
        """
        self._parted = parted
        self._outside = outside
        self._processes = [Process(crew, Board(crew.lane.board)) for crew in crews]
        #: Held by whoever hands visits over, and set when there is more to be handed.
        self._handing = threading.Lock()
        self._is_more = False
        self._ended = threading.Event()
        self._threads = 0
        self._looked_at = time.monotonic()
        concurrency = sum(crew.threads for crew in crews)
        super().__init__(
            perform, on_result, concurrency=concurrency, permits=permits, breakers=breakers
        )
        self._mine = (FLEET,) if FLEET in permits else ()
        self._theirs = [server for server in permits if server != FLEET]
        self._serving = [(each, self._start(self._serve, each)) for each in self._processes]
        self._start(self._look_after)

    def _threads_at_first(self) -> int:
        return 1

    def _start(self, call: Callable[..., None], *arguments: object) -> threading.Thread:
        name = f"processes-{next(self._numbers)}"
        thread = threading.Thread(target=call, args=arguments, name=name, daemon=True)
        thread.start()
        return thread

    def _start_thread(self) -> None:
        self._threads += 1
        super()._start_thread()

    # For the runner.

    def submit(self, visits: Sequence[VisitRequest], *, delay: timedelta | None = None) -> None:
        """Take visits on, now or after a delay."""
        super().submit(visits, delay=delay)
        of_fleet = sum(visit.tenant.server == FLEET for visit in visits)
        if of_fleet:
            for _ in range(min(of_fleet, self.concurrency) - self._threads):
                self._start_thread()
            with self._lock:
                self._work_there.notify_all()
        if of_fleet < len(visits):
            self._is_more = True
            self._hand_over()

    def drain(self) -> None:
        """Begin nothing more, anywhere. Takes no lock."""
        self._draining = True
        for process in self._processes:
            process.board.drain()

    def idle(self) -> bool:
        """Tell whether nothing is running, and nothing will."""
        if self._draining:
            self._tell_drain()
        return super().idle()

    def cancel(self) -> None:
        """Let the deadlines of all that runs in processes expire."""
        for process in self._processes:
            self._tell(process, Cancel())

    def close(self) -> None:
        """Let the threads and the processes end; they get a moment for it."""
        super().close()
        self._ended.set()
        for process in self._processes:
            self._tell(process, End())
        until = time.monotonic() + _LETTING_GO_SECONDS
        for process, thread in self._serving:
            if process.number is not None:
                thread.join(max(until - time.monotonic(), 0.0))

    def _begun_of(self, turn: Turn, requests: Sequence[Request]) -> int:
        if not isinstance(turn, FarTurn):
            return super()._begun_of(turn, requests)
        process = next((p for p in self._processes if p.turns.get(turn.place) is turn), None)
        begun = 0 if process is None else process.board.begun(turn.place)
        done = len(turn.visit.requests) - len(requests)
        return min(max(begun - done, 0), len(requests))

    def _replace(self, turn: Turn) -> None:
        if not isinstance(turn, FarTurn):
            super()._replace(turn)

    def _until_due(self) -> float | None:
        # Its threads have only what comes to them by itself; the rest is looked after.
        return None

    # Handing over.

    def _hand_over(self) -> None:
        """Give each process what it has room for; one thread at a time, so that order is kept."""
        while self._is_more and self._handing.acquire(blocking=False):
            try:
                self._is_more = False
                for process, words in self._next_visits().items():
                    self._tell(process, *words)
            finally:
                self._handing.release()

    def _next_visits(self) -> dict[Process, list[object]]:
        """Return what is to be said to whom."""
        given: dict[Process, list[Any]] = {}
        with self._lock:
            share = self._share()
            rooms = {each: each.room(share) for each in self._processes}
            while rooms and not self._closed:
                process = max(rooms, key=rooms.__getitem__)
                if rooms[process] < 1:
                    break
                server = self._next_server(self._open_to(process))
                if server is None:
                    del rooms[process]
                    continue
                rooms[process] -= 1
                given.setdefault(process, []).append(self._give(process, server))
        return {process: self._words(process, turns) for process, turns in given.items()}

    def _open_to(self, process: Process) -> list[str]:
        """Return the servers of which a process may have one more visit."""
        if not self._parted:
            return self._theirs
        there = Counter(turn.tenant.server for turn in process.turns.values())
        place, processes = self._processes.index(process), len(self._processes)
        return [
            server
            for server in self._theirs
            # The permits of a server are parted, and the first ones get what is over.
            if server not in self._parted
            or there[server] < (self._permits[server] + processes - 1 - place) // processes
        ]

    def _share(self) -> int:
        """Return how many of all visits that are there are enough for one process.

        The first one that is ready would take all of a small run.
        """
        there = sum(len(self._queues[server]) for server in self._theirs)
        there += sum(len(process.turns) for process in self._processes)
        return -(-there // max(len(self._processes), 1))

    def _give(self, process: Process, server: str) -> tuple[FarTurn, bool]:
        turn = FarTurn(self._queues[server].popleft(), place=process.free.pop())
        breaker = self._breakers.of(server)
        process.board.clear(turn.place)
        process.turns[turn.place] = turn
        self._begin(turn)
        self._breakers.begin(turn.tenant)
        return turn, breaker is not None and not breaker.is_quiet

    def _words(self, process: Process, turns: Iterable[tuple[FarTurn, bool]]) -> list[object]:
        words: list[object] = []
        packed = []
        for turn, is_awaited in turns:
            for what in self._outside.needs(turn.visit):
                if what not in process.known:
                    process.known.add(what)
                    words.append(Learn(what))
            packed.append(pack_visit(turn.visit, turn.place, is_awaited=is_awaited))
        return [*words, Visits(packed)]

    @staticmethod
    def _tell(process: Process, *words: object) -> None:
        number = process.number
        if number is not None:
            process.crew.lane.tell(number, words)

    # Looking after processes.

    def _look_after(self) -> None:
        while not self._ended.wait(_TICK_SECONDS):
            if self._draining:
                self._tell_drain()
            else:
                self._see_how_fast()
                self._is_more = True
                self._hand_over()
                self._ask_back()
            with self._lock:
                if not self._running.total():
                    # A server may be hopeless by now.
                    self._work_there.notify_all()

    def _tell_drain(self) -> None:
        for process in self._processes:
            if process.number is not None and not process.is_told_to_drain:
                process.is_told_to_drain = True
                self._tell(process, Drain())

    def _see_how_fast(self) -> None:
        now = time.monotonic()
        elapsed, self._looked_at = now - self._looked_at, now
        for process in self._processes:
            process.see_how_fast(elapsed)

    def _ask_back(self) -> None:
        """Ask for what waits in one process while a thread of another one has nothing to do."""
        if any(process.has_idle_thread() for process in self._processes):
            for process in self._processes:
                if process.has_waiting() and not process.is_asked_back:
                    process.is_asked_back = True
                    self._tell(process, GiveBack())

    # In a process's thread: what it says, and what becomes of it.

    def _serve(self, process: Process) -> None:
        lane = process.crew.lane
        while not self._closed:
            try:
                lane.run(
                    process.crew.request,
                    lambda words: self._take_words(process, words),
                    after=self._hand_over,
                )
            except Exception as error:  # noqa: BLE001 - whatever became of it
                if not self._bury(process, error):
                    return

    def _take_words(self, process: Process, words: Iterable[object]) -> None:
        try:
            for word in words:
                self._take_word(process, word)
        except BaseException as error:  # noqa: BLE001 - the runner hears of it
            self.fail(error)

    def _take_word(self, process: Process, word: object) -> None:  # noqa: C901 - one case for each word
        match word:
            case Over(place, seconds, packed):
                if packed is not None:
                    self._take_result(process.turns[place], packed)
                self._finish(process, place, seconds)
            case Ended(place, packed):
                self._take_result(process.turns[place], packed)
            case Started(place):
                self._note_start(process.turns[place])
            case Ready():
                process.number = process.crew.lane.number
                self._is_more = True
                if self._closed:
                    self._tell(process, End())
            case Stuck(place, packed):
                turn = process.turns[place]
                self._note_start(turn)
                self._outside.on_stuck(self._result(turn, packed))
                # What is stuck there says nothing more.
                self._free(process, place)
            case Reached(place):
                self.reached(process.turns[place].tenant)
            case Written(line):
                self._outside.write(line)
            case Told(event):
                self._outside.emit(event)
            case Kill():
                self._start(self._kill, process, word)
            case Broke(what):
                self.fail(BrokenVisitError(what))

    def _note_start(self, turn: FarTurn) -> None:
        """Tell that the first of a turn's requests has begun, once."""
        if turn.started is not turn.requests[0]:
            turn.started = turn.requests[0]
            self._outside.emit(ExecutionStarted(request=turn.started, tenant=turn.tenant))

    def _take_result(self, turn: FarTurn, packed: tuple[Any, ...]) -> None:
        self._note_start(turn)
        self._deliver(turn, self._result(turn, packed))

    def _result(self, turn: FarTurn, packed: tuple[Any, ...]) -> Result:
        request, tenant = turn.requests[0], turn.tenant
        # Not sent back: its exceptions may be of a class that is not known here.
        policy = self._outside.policy(request, tenant) if may_be_repeated(packed) else None
        return unpack_result(packed, request, tenant.server, policy)

    def _finish(self, process: Process, place: int, seconds: float | None) -> None:
        turn = process.turns[place]
        self._free(process, place)
        if seconds is not None:
            process.ended += 1
            process.deaths = 0
            self._outside.emit(VisitFinished(tenant=turn.tenant.name, seconds=seconds))

    def _free(self, process: Process, place: int) -> None:
        with self._lock:
            turn = process.turns.pop(place)
            process.free.append(place)
            process.is_asked_back = False
            self._is_more = True
            if not turn.is_over:
                if not turn.done:
                    # It has waited longer than those that wait now.
                    self._queues[turn.tenant.server].appendleft(turn.visit)
                    turn.requests.clear()
                self._end(turn)

    def _kill(self, process: Process, asked: Kill) -> None:
        answer = self._outside.kill(asked.server, asked.number, asked.sever)
        self._tell(process, Killed(asked.ticket, answer))

    def _bury(self, process: Process, error: Exception) -> bool:
        """Settle what a dead process has left; tell whether another one is to be started."""
        process.number = None
        if self._closed:
            return False
        died = error if isinstance(error, ProcessDied) else None
        text = f"a process of the run died: {error}; {len(process.turns)} visits were there"
        self._outside.emit(Warned(subject="processes", text=text))
        try:
            for place in list(process.turns):
                self._settle(process, place, died or ProcessDied(str(error)))
        except BaseException as failure:  # noqa: BLE001 - the runner hears of it
            self.fail(failure)
        process.deaths += 1
        process.known.clear()
        process.is_told_to_drain = False
        if died is not None and process.deaths < _PATIENCE:
            return not self._draining
        self._give_up(process, error)
        return False

    def _settle(self, process: Process, place: int, error: ProcessDied) -> None:
        """Give what had begun its outcome, and queue the rest again."""
        turn = process.turns[place]
        begun = process.board.begun(place)
        session = process.board.session(place)
        if session is not None:
            # What was killed is not missed by the server as long as its statement goes on.
            self._outside.kill(turn.tenant.server, session, True)
        while turn.done < begun and not turn.is_over:
            self._note_start(turn)
            since = process.board.since(place)
            died = self._outside.died(turn.requests[0], turn.tenant, since, error)
            process.deaths = 0
            self._deliver(turn, died)
        self._free(process, place)

    def _give_up(self, process: Process, error: Exception) -> None:
        self._processes = [each for each in self._processes if each is not process]
        if not self._processes:
            self.fail(ProcessDied(f"no process of the run is left: {error}"))
