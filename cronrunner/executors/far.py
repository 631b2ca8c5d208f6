"""A process of a run as the run sees it: how to reach it, and what it has to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from cronrunner.errors import ProcessDied
from cronrunner.events import Event
from cronrunner.executors.base import OnResult
from cronrunner.executors.turns import Turn
from cronrunner.executors.words import Board
from cronrunner.model import Request, Result, RetryPolicy, Tenant, VisitRequest

#: What a process is handed beyond its threads is what it begins in this time.
_AHEAD_SECONDS: Final = 0.005
_MOST_AHEAD: Final = 32


class Lane(Protocol):
    """What carries words to a process and back; ``cronrunner.processes.Lane`` is one."""

    board: memoryview

    @property
    def number(self) -> int:
        """The number of the request that is performed."""

    def run(
        self, request: object, take: Callable[[Any], object], *, after: Callable[[], None]
    ) -> Any:  # noqa: ANN401 - nothing
        """Perform a request; raises ``ProcessDied``."""

    def tell(self, number: int, word: object) -> None:
        """Say something to the process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """What a run does for its processes beside taking results."""

    #: Takes the result of an attempt that nothing could end.
    on_stuck: OnResult
    emit: Callable[[Event], None]
    #: Writes a line of the log.
    write: Callable[[str], None]
    #: Ends a statement or a session at its server: server, number, sever.
    kill: Callable[[str, int, bool], bool | None]
    #: Makes the result of an attempt whose process died: what is known of it, and how it died.
    died: Callable[[Request, Tenant, float, ProcessDied], Result]
    #: The policy of a job on a tenant.
    policy: Callable[[Request, Tenant], RetryPolicy | None]
    #: What a process must know before it makes a visit; each is told once to each process.
    needs: Callable[[VisitRequest], Iterable[Any]] = lambda _: ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """A process to be had: its lane, what it is asked to do there, and its threads."""

    lane: Lane
    request: object
    threads: int

    @staticmethod
    def board_size(threads: int) -> int:
        """Return how many numbers the board of a process with so many threads takes."""
        return Board.size(threads + _MOST_AHEAD)


@dataclass(slots=True, eq=False)
class FarTurn(Turn):
    """A visit that was handed to a process."""

    place: int = 0
    #: The last attempt of which it was told that it begins.
    started: Request | None = None

    @property
    def done(self) -> int:
        """How many of its jobs have ended."""
        return len(self.visit.requests) - len(self.requests)


@dataclass(slots=True, eq=False)
class Process:
    """A process of the run and what it has to do."""

    crew: Crew
    board: Board
    #: What has its places.
    turns: dict[int, FarTurn] = field(default_factory=dict)
    free: list[int] = field(init=False)
    known: set[Any] = field(default_factory=set)
    #: It has said that visits may come; under this number.
    number: int | None = None
    is_told_to_drain: bool = False
    is_asked_back: bool = False
    #: Visits that have ended, in all and at the last look, and how many more it is handed.
    ended: int = 0
    ended_before: int = 0
    ahead: int = 0
    #: Times in a row that it died with nothing done.
    deaths: int = 0

    def __post_init__(self) -> None:
        self.free = list(range(self.crew.threads + _MOST_AHEAD))

    def room(self, share: int) -> int:
        """Return how many more visits it is to be handed, and no more than its share in all."""
        if self.number is None:
            return 0
        if len(self.turns) > self.crew.threads + self.ahead // 2:
            # It has enough for now; then several at once, which costs little more than one.
            return 0
        return min(self.crew.threads + self.ahead, share) - len(self.turns)

    def see_how_fast(self, elapsed_seconds: float) -> None:
        """Choose how many visits it is handed ahead, by what it did since the last look."""
        rate = (self.ended - self.ended_before) / elapsed_seconds
        self.ended_before = self.ended
        self.ahead = min(int(rate * _AHEAD_SECONDS), _MOST_AHEAD)

    def has_idle_thread(self) -> bool:
        """Tell whether it has a thread with nothing to do."""
        return self.number is not None and len(self.turns) < self.crew.threads

    def has_waiting(self) -> bool:
        """Tell whether it has visits that wait for its threads."""
        return len(self.turns) > self.crew.threads
