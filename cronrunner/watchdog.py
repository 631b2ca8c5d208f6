"""Deadlines: cancels what runs too long, at the server first.

Each server has a thread of its own, so that one that hangs delays no other's deadlines. It
keeps the armed deadlines of its server in a heap and one control connection, opened when it is
first needed, within the permits that are reserved for the runner.

What happens at a deadline, and is told to ``on_kill``
    1. The statement is cancelled at the server. The kind looks the session up in the process
       list first and names the very statement where the server can (MariaDB's query id).
    2. A second later, if the attempt has not ended: the session is closed at the server, and
       the socket under our feet is shut, so that whoever reads from it returns at once.
    3. After the grace: the attempt is ``stuck``. Its thread cannot be ended by anything in
       Python; ``on_stuck`` tells whoever gives its place back.

Who wins
    ``Deadline`` has a lock. Whoever arms takes it to disarm; the watchdog holds it while it
    expires the deadline and cancels. An attempt that ends while a cancel is on its way waits
    for the cancel to be over: its session never goes on to other work with a kill in flight.
    An attempt is timed out by the deadline's own flag, not by an error: SLEEP, GET_LOCK and
    others return as if nothing had happened when they are killed.

A thread that holds the GIL
    cannot be interrupted by anything in its process. ``Pulse`` keeps faulthandler's timer
    armed a grace ahead and re-arms it as long as Python runs; when it does not, the process
    dumps its stacks and dies, and the next run names what was cut off.
"""

from __future__ import annotations

import faulthandler
import heapq
import itertools
import logging
import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, Final, Protocol, Self

from cronrunner.model import Killed

_LOG: Final = logging.getLogger(__name__)

#: From cancelling the statement to closing the session.
_CLOSE_AFTER_SECONDS: Final = 1.0
#: What a thread gets to notice that its session is gone.
_WAKE_SECONDS: Final = 0.5
#: Entries of a heap before it is first swept.
_SWEEP: Final = 256


class Session(Protocol):
    """A tenant's session, as far as a deadline needs it. Its methods never raise."""

    @property
    def severed(self) -> Killed:
        """What ``sever`` ends."""

    def cancel(self) -> bool | None:
        """Cancel the running statement; ``None`` when the server could not be asked."""

    def sever(self) -> None:
        """Close the session at the server, and the socket here."""


class Watch(Protocol):
    """Keeps deadlines, here or elsewhere."""

    def arm(
        self,
        server: str,
        timeout: timedelta,
        session: Session | None,
        on_stuck: Callable[[], None],
    ) -> Deadline:
        """Start the watch over an attempt on ``server`` that begins now."""


@dataclass(slots=True, eq=False)
class Deadline:
    """One attempt's deadline. ``expired`` is its outcome, whatever the job returned."""

    session: Session | None
    #: Monotonic seconds at which the attempt's time is over.
    at: float
    on_stuck: Callable[[], None] | None
    #: When the watchdog looks at it next.
    due: float = 0.0
    expired: bool = False
    #: Expired by ``Watchdog.cancel_all``, not by its time.
    drained: bool = False
    #: How far the watchdog went: 0 waiting, 1 cancelled, 2 severed, 3 stuck.
    stage: int = 0
    done: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def disarm(self) -> bool:
        """End the watch, after a cancel on its way; tell whether the deadline had expired."""
        with self.lock:
            self.done = True
            self.session = self.on_stuck = None
            return self.expired


class ServerWatch:
    """Watches the deadlines of one server."""

    def __init__(
        self, name: str, *, grace: timedelta, on_kill: Callable[[Killed], None] = lambda _: None
    ) -> None:
        self._grace = grace.total_seconds()
        self._on_kill = on_kill
        #: (when to look, order, deadline). Those that were disarmed stay until they are swept.
        self._heap: list[tuple[float, int, Deadline]] = []
        self._order = itertools.count()
        self._sweep_at = _SWEEP
        #: Monotonic seconds until which the thread sleeps.
        self._wakes_at = math.inf
        #: Taken itself, and not by its condition: that is quicker.
        self._lock = threading.RLock()
        self._change = threading.Condition(self._lock)
        self._closed = False
        threading.Thread(target=self._watch, name=f"watchdog-{name}", daemon=True).start()

    def arm(
        self, timeout: timedelta, session: Session | None, on_stuck: Callable[[], None]
    ) -> Deadline:
        """Start the watch over an attempt that begins now."""
        at = time.monotonic() + timeout.total_seconds()
        deadline = Deadline(session=session, at=at, on_stuck=on_stuck)
        self._look_again(deadline, at)
        return deadline

    def cancel_all(self) -> None:
        """Let every deadline expire now."""
        with self._lock:
            waiting = [deadline for _, _, deadline in self._heap if not deadline.done]
        now = time.monotonic()
        for deadline in waiting:
            if deadline.stage == 0:
                deadline.drained, deadline.at = True, now
                self._look_again(deadline, now)

    def close(self) -> None:
        """End the watch."""
        with self._lock:
            self._closed = True
            self._change.notify()

    def _look_again(self, deadline: Deadline, at: float) -> None:
        with self._lock:
            deadline.due = at
            heapq.heappush(self._heap, (at, next(self._order), deadline))
            if len(self._heap) > self._sweep_at:
                self._sweep()
            if at < self._wakes_at:
                self._change.notify()

    def _sweep(self) -> None:
        """Drop what was disarmed long before its time: the heap stays as large as the work."""
        self._heap = [entry for entry in self._heap if not entry[2].done]
        heapq.heapify(self._heap)
        self._sweep_at = max(_SWEEP, 2 * len(self._heap))

    def _watch(self) -> None:
        while (deadline := self._next()) is not None:
            with deadline.lock:
                again = None if deadline.done else self._act_safely(deadline)
            if again is not None:
                self._look_again(deadline, again)

    def _act_safely(self, deadline: Deadline) -> float | None:
        """Go on to the next stage whatever a driver does: other deadlines depend on this thread."""
        try:
            return self._act(deadline)
        except Exception:  # noqa: BLE001 - whatever a driver raises
            _LOG.exception("a deadline could not be enforced")
            return None if deadline.done else time.monotonic()

    def _next(self) -> Deadline | None:
        """Wait for the next deadline that is due."""
        with self._lock:
            while not self._closed:
                wait = self._heap[0][0] - time.monotonic() if self._heap else None
                if wait is None or wait > 0:
                    # It is woken up for what comes before this, and for nothing else.
                    self._wakes_at = self._heap[0][0] if self._heap else math.inf
                    self._change.wait(wait)
                    continue
                at, _, deadline = heapq.heappop(self._heap)
                if not deadline.done and at == deadline.due:
                    return deadline
            return None

    def _act(self, deadline: Deadline) -> float | None:
        """Go one stage further; return when to come again. The caller holds the lock."""
        deadline.expired = True
        deadline.stage += 1
        if deadline.session is None and deadline.stage == 1:
            return deadline.at + self._grace
        if deadline.session is not None and deadline.stage == 1:
            found = deadline.session.cancel()
            if found:
                self._on_kill(Killed.STATEMENT)
            # A server that cannot be asked to stop will not stop by itself in a second.
            return time.monotonic() + (0.0 if found is None else _CLOSE_AFTER_SECONDS)
        if deadline.session is not None and deadline.stage == 2:  # noqa: PLR2004 - see the field
            deadline.session.sever()
            self._on_kill(deadline.session.severed)
            return max(deadline.at + self._grace, time.monotonic() + _WAKE_SECONDS)
        deadline.done = True
        # A drain does not wait for what is stuck: the runner records it as interrupted.
        if deadline.on_stuck is not None and not deadline.drained:
            deadline.on_stuck()
        return None


class Watchdog:
    """The watches of all servers, made when they are first needed."""

    def __init__(
        self, *, grace: timedelta, on_kill: Callable[[str, Killed], None] = lambda *_: None
    ) -> None:
        """``on_kill`` is told, by any watch's thread, what was ended and on which server."""
        self._grace = grace
        self._on_kill = on_kill
        self._lock = threading.Lock()
        self._watches: dict[str, ServerWatch] = {}

    def arm(
        self,
        server: str,
        timeout: timedelta,
        session: Session | None,
        on_stuck: Callable[[], None],
    ) -> Deadline:
        """Start the watch over an attempt on ``server`` that begins now."""
        watch = self._watches.get(server) or self._watch_of(server)
        return watch.arm(timeout, session, on_stuck)

    def _watch_of(self, server: str) -> ServerWatch:
        with self._lock:
            if server not in self._watches:
                on_kill = partial(self._on_kill, server)
                self._watches[server] = ServerWatch(server, grace=self._grace, on_kill=on_kill)
            return self._watches[server]

    def cancel_all(self) -> None:
        """Let every deadline of every server expire now: the grace of a drain is over."""
        with self._lock:
            for watch in self._watches.values():
                watch.cancel_all()

    def close(self) -> None:
        """End all watches."""
        with self._lock:
            for watch in self._watches.values():
                watch.close()


class Pulse:
    """Ends the process if Python stands still for longer than the grace."""

    def __init__(self, *, grace: timedelta, file: Any) -> None:  # noqa: ANN401 - has a fileno
        self._grace = grace.total_seconds()
        self._file = file
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="watchdog-pulse", daemon=True)

    def __enter__(self) -> Self:
        # Without a real file there is nobody to tell, and nothing to tell it with.
        with suppress(AttributeError, OSError, ValueError):
            self._file.fileno()
            self._arm()
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        if self._thread.ident is not None:
            # It must not arm once more behind our back.
            self._thread.join()
        faulthandler.cancel_dump_traceback_later()

    def _beat(self) -> None:
        while not self._stopped.wait(self._grace / 4):
            self._arm()

    def _arm(self) -> None:
        faulthandler.dump_traceback_later(self._grace, exit=True, file=self._file)
