"""Visits in threads of this process.

The threads are daemons: nothing in Python can end a thread that hangs, and it must not keep
the process from ending.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

from cronrunner.executors.base import OnResult, Perform
from cronrunner.executors.breaking import Breakers
from cronrunner.executors.turns import Turn, Turns


class ThreadExecutor(Turns):
    """Carries out visits in ``concurrency`` threads."""

    def __init__(
        self,
        perform: Perform,
        on_result: OnResult,
        *,
        concurrency: int,
        permits: Mapping[str, int],
        breakers: Breakers,
    ) -> None:
        super().__init__(on_result, concurrency=concurrency, permits=permits, breakers=breakers)
        self._perform = perform
        #: The servers whose visits the threads make.
        self._mine: Iterable[str] = self._queues
        for _ in range(self._threads_at_first()):
            self._start_thread()

    def _threads_at_first(self) -> int:
        return self.concurrency

    def _start_thread(self) -> None:
        name = f"visit-{next(self._numbers)}"
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def _replace(self, turn: Turn) -> None:
        del turn
        self._start_thread()

    def _work(self) -> None:
        while (taken := self._take()) is not None:
            turn, perform = taken
            try:
                self._visit(turn, perform)
            except BaseException as error:  # noqa: BLE001 - a broken runner must not look idle
                # What this visit has not delivered may have been done: nobody may do it again.
                self._failure = error
                self.drain()
            with self._lock:
                if turn.is_over:
                    # Abandoned as stuck, and back at last: another thread has its place.
                    return
                # One permit is free, and this thread itself comes back for it: none is woken up.
                self._end(turn)

    def _take(self) -> tuple[Turn, Perform] | None:
        """Return the next visit and what is to be done with it."""
        with self._lock:
            while not self._closed:
                if (server := self._next_server(self._mine)) is not None:
                    turn = self._first(server)
                    self._breakers.begin(turn.tenant)
                    return turn, self._perform
                if (server := self._hopeless()) is not None:
                    return self._first(server), self._breakers.leave_out
                self._work_there.wait(self._until_due())
            return None

    def _first(self, server: str) -> Turn:
        turn = Turn(self._queues[server].popleft())
        self._begin(turn)
        return turn

    def _visit(self, turn: Turn, perform: Perform) -> None:
        attempts = perform(turn.visit)
        try:
            for result in attempts:
                if not self._deliver(turn, result):
                    break
        finally:
            attempts.close()  # type: ignore[attr-defined] # a generator: it ends the visit
