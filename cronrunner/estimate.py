"""How long the rest of a run will take. Pure arithmetic; the clock is a parameter.

A run visits the longest first, so that the number of executions that are done says little: half
of the time goes into the first few. What counts is the work that is left. Of a visit that history
knows it is what history expects, corrected by how the run has compared with history so far; of
any other execution the mean of those of its job in this run. To that comes what passes between
executions, which counts when they get short. Both are taken from the newest part of the run.

The work is shared by as many visits as may go on at once. It takes no less time than that of the
server with the least room takes there, and no less than the longest visit.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from cronrunner.model import Visit

#: Before anything has ended: an execution takes a process no less than this.
_LEAST_SECONDS: Final = 0.0005
#: How far the newest part of a run goes back: in seconds, and as a part of the run so far.
_RECENT_SECONDS: Final = 0.25
_RECENT: Final = 0.25
#: Executions of a job that say more of it than all other jobs do.
_FEW: Final = 5


@dataclass(slots=True, kw_only=True)
class _Server:
    """What is left to do on one server."""

    permits: int
    visits: int = 0
    executions: int = 0
    #: What history expects of the visits that have not begun.
    waiting_seconds: float = 0.0
    #: Job -> executions of which history knows nothing.
    unknown: Counter[str] = field(default_factory=Counter)

    @property
    def lanes(self) -> int:
        """How many of its visits may go on at once."""
        return min(self.permits, self.visits)


@dataclass(slots=True, kw_only=True)
class _Turn:
    """A visit that has begun and not ended."""

    visit: Visit
    #: Executions without an end.
    left: int
    #: What those have taken of which history knows something.
    seconds: float = 0.0
    #: Something was left out or repeated: its time says nothing of history.
    is_odd: bool = False
    #: Job -> when it began, of those that go on.
    running: dict[str, float] = field(default_factory=dict)

    def known_seconds(self, at: float) -> float:
        """Return what was done by now of what history expects."""
        going_on = (at - began for job, began in self.running.items() if self.knows(job))
        return self.seconds + sum(going_on)

    def unknown_running(self) -> Iterator[tuple[str, float]]:
        """Give what goes on of which history knows nothing, and when it began."""
        return (each for each in self.running.items() if not self.knows(each[0]))

    def knows(self, job: str) -> bool:
        """Tell whether history knows a job on this tenant."""
        return job not in self.visit.unknown_jobs


class Remaining:
    """The time that a run will still take. Not thread-safe; all times are monotonic seconds."""

    def __init__(
        self,
        visits: Sequence[Visit],
        *,
        concurrency: int,
        permits: Callable[[str], int],
    ) -> None:
        """``permits`` tells how many visits a server may have at once."""
        self._order = visits
        #: From each place of the order on: what the longest visit is expected to take.
        self._longest = array("d", accumulate(map(_expected, reversed(visits)), max))[::-1]
        self._next = 0
        #: Those that have not begun.
        self._waiting = {visit.tenant.name: visit for visit in visits}
        self._turns: dict[str, _Turn] = {}
        self._servers: dict[str, _Server] = {}
        for visit in visits:
            self._expect(visit, permits)
        self._concurrency = concurrency
        #: Visits for which the servers have room.
        self._room = sum(server.lanes for server in self._servers.values())
        self._mean_of_history = _mean_of_history(visits)
        self._pace = _Pace()

    def _expect(self, visit: Visit, permits: Callable[[str], int]) -> None:
        name = visit.tenant.server
        server = self._servers.get(name)
        if server is None:
            server = self._servers[name] = _Server(permits=permits(name))
        server.visits += 1
        server.executions += len(visit.jobs)
        server.waiting_seconds += _expected(visit)
        for job in visit.unknown_jobs:
            server.unknown[job] += 1

    @property
    def unknown(self) -> int:
        """How many executions are left of which history knows nothing."""
        return sum(server.unknown.total() for server in self._servers.values())

    # What happens. Whatever belongs to no visit is left out.

    def begin(self, tenant: str, job: str, at: float) -> None:
        """Take note that an execution has begun."""
        turn = self._turn(tenant, job)
        if turn is not None:
            self._pace.pass_time(at, self._lanes)
            self._pace.running += job not in turn.running
            turn.running[job] = at

    def put_off(self, tenant: str, job: str, at: float) -> None:
        """Take note that an attempt has failed, and another one comes later."""
        turn = self._turn(tenant, job)
        if turn is not None:
            self._stop(turn, job, at)
            turn.is_odd = True

    def end(self, tenant: str, job: str, at: float, seconds: float | None) -> None:
        """Take note that an execution has ended; ``seconds`` is ``None`` if it was not made."""
        turn = self._turn(tenant, job)
        if turn is None:
            return
        seen = self._stop(turn, job, at)
        if seconds is not None and seconds > seen:
            # Nobody had said that it began, or not in time: the rest was taken for idle.
            self._pace.idle_seconds -= seconds - seen
        server = self._servers[turn.visit.tenant.server]
        turn.left -= 1
        server.executions -= 1
        if not turn.knows(job):
            server.unknown[job] -= 1
        if seconds is None:
            turn.is_odd = True
        elif turn.knows(job):
            turn.seconds += seconds
            self._pace.ended += 1
        else:
            self._pace.add_unknown(job, seconds)
        if not turn.left:
            self._end_turn(turn, server)

    def _turn(self, tenant: str, job: str) -> _Turn | None:
        turn = self._turns.get(tenant)
        if turn is None and tenant in self._waiting and job in self._waiting[tenant].jobs:
            visit = self._waiting.pop(tenant)
            turn = self._turns[tenant] = _Turn(visit=visit, left=len(visit.jobs))
            self._servers[visit.tenant.server].waiting_seconds -= _expected(visit)
        return turn if turn is not None and job in turn.visit.jobs else None

    def _stop(self, turn: _Turn, job: str, at: float) -> float:
        """Return for how many seconds it was known to go on."""
        self._pace.pass_time(at, self._lanes)
        began = turn.running.pop(job, None)
        self._pace.running -= began is not None
        return 0.0 if began is None else at - began

    def _end_turn(self, turn: _Turn, server: _Server) -> None:
        del self._turns[turn.visit.tenant.name]
        before = server.lanes
        server.visits -= 1
        self._room += server.lanes - before
        if turn.visit.expected_seconds is not None and not turn.is_odd:
            self._pace.compare(turn.seconds, turn.visit.expected_seconds)

    @property
    def _lanes(self) -> int:
        return max(min(self._concurrency, self._room), 1)

    # What comes of it.

    def seconds(self, at: float) -> float | None:
        """Return how long the rest takes; ``None`` as long as nothing is known of it."""
        means = self._means(at)
        if means is None:
            return None
        works = {name: self._work(each, means) for name, each in self._servers.items()}
        longest = self._pace.ratio * self._longest_waiting()
        for turn in self._turns.values():
            left = self._left_of(turn, means, at)
            works[turn.visit.tenant.server] += left
            longest = max(longest, left)
        alone = (
            works[name] / max(min(each.lanes, self._concurrency), 1)
            for name, each in self._servers.items()
        )
        left = sum(each.executions for each in self._servers.values())
        least = 0.0 if self._pace.ended else _LEAST_SECONDS * left
        shared = sum(works.values()) / self._lanes + self._ragged(means)
        return max(shared, longest, least, *alone)

    def _means(self, at: float) -> dict[str, float] | None:
        """Return what executions take of which history knows nothing, by job."""
        going_on: defaultdict[str, list[float]] = defaultdict(list)
        for turn in self._turns.values():
            for job, began in turn.unknown_running():
                going_on[job].append(at - began)
        jobs = {job for each in self._servers.values() for job in each.unknown if each.unknown[job]}
        before = self._mean_of_history
        means = {job: self._pace.mean(job, going_on[job], before=before) for job in jobs}
        known = {job: mean for job, mean in means.items() if mean is not None}
        return known if len(known) == len(means) else None

    def _work(self, server: _Server, means: Mapping[str, float]) -> float:
        """Return the seconds of what has not ended on a server, but for visits that go on."""
        unknown = sum(number * means[job] for job, number in server.unknown.items() if number)
        gaps = self._pace.gap_seconds * server.executions
        return self._pace.ratio * server.waiting_seconds + unknown + gaps

    def _left_of(self, turn: _Turn, means: Mapping[str, float], at: float) -> float:
        """Return what is left of a visit that goes on; its unknown jobs are counted already."""
        known = self._pace.ratio * _expected(turn.visit) - turn.known_seconds(at)
        unknown = (min(at - began, means[job]) for job, began in turn.unknown_running())
        return max(known, 0.0) - sum(unknown)

    def _ragged(self, means: Mapping[str, float]) -> float:
        """Return how much later the end is than it would be if all ended at once.

        It is half of the last visit if that is in no order, and next to nothing if it is.
        """
        last = self._order[-1] if self._order else None
        if last is None or last.tenant.name not in self._waiting or self._lanes == 1:
            return 0.0
        return sum(means[job] for job in last.unknown_jobs) / 2

    def _longest_waiting(self) -> float:
        while self._next < len(self._order):
            if self._order[self._next].tenant.name in self._waiting:
                return self._longest[self._next]
            self._next += 1
        return 0.0


class _Pace:
    """How a run gets on, compared with history."""

    def __init__(self) -> None:
        #: When the first visit began, and when something was last heard of any.
        self._began: float | None = None
        self._at = 0.0
        #: Executions that go on.
        self.running = 0
        #: Of the newest part of the run, in which visits were about as long as the next ones will
        #: be: time in which a visit might have gone on and did not, and executions that have ended;
        self.idle_seconds = 0.0
        self.ended = 0.0
        #: of whole visits what they have taken, and what history had expected of them.
        self._taken = self._expected = 0.0
        #: Job -> seconds and number of the executions of which history knew nothing.
        self._unknown: dict[str, tuple[float, int]] = {}

    def pass_time(self, at: float, lanes: int) -> None:
        """Let the time since the last event pass; what is long ago fades away."""
        if self._began is None:
            self._began = self._at = at
        passed = max(at - self._at, 0.0)
        self._at = max(at, self._at)
        recent = max(_RECENT_SECONDS, _RECENT * (self._at - self._began))
        fade = math.exp(-passed / recent)
        self.idle_seconds = self.idle_seconds * fade + passed * max(lanes - self.running, 0)
        self.ended *= fade
        self._taken *= fade
        self._expected *= fade

    def compare(self, taken: float, expected: float) -> None:
        """Take note of what a visit has taken, of which history had expected something."""
        self._taken += taken
        self._expected += expected

    def add_unknown(self, job: str, seconds: float) -> None:
        """Take note of an execution of which history knew nothing."""
        self.ended += 1
        total, number = self._unknown.get(job, (0.0, 0))
        self._unknown[job] = total + seconds, number + 1

    @property
    def ratio(self) -> float:
        """What visits take, as a part of what history expects."""
        return self._taken / self._expected if self._expected else 1.0

    @property
    def gap_seconds(self) -> float:
        """What passes between two executions."""
        return max(self.idle_seconds, 0.0) / self.ended if self.ended else 0.0

    def mean(self, job: str, going_on: Sequence[float], *, before: float | None) -> float | None:
        """Return what an execution takes of a job of which history knows nothing.

        ``going_on`` are the seconds of those that have begun: the short ones are the first to end.
        ``before`` is believed before the run has shown it, and weighs as much as a few of them.
        """
        seconds, number = self._unknown.get(job, (0.0, 0))
        few = 0 if before is None else _FEW
        if not number + few:
            return self._mean_of_all()
        mean = (seconds + few * (before or 0.0)) / (number + few)
        return mean + sum(max(each - mean, 0.0) for each in going_on) / (number + few)

    def _mean_of_all(self) -> float | None:
        number = sum(each for _, each in self._unknown.values())
        return sum(each for each, _ in self._unknown.values()) / number if number else None


def _expected(visit: Visit) -> float:
    return visit.expected_seconds or 0.0


def _mean_of_history(visits: Sequence[Visit]) -> float | None:
    """Return what an execution takes on which history has a say; ``None`` if it has none."""
    known = sum(len(visit.jobs) - len(visit.unknown_jobs) for visit in visits)
    return sum(map(_expected, visits)) / known if known else None
