"""What a run and its processes say to each other of visits.

A visit is sent as plain values, with a place: a small number that is its own until it has ended.
What is said of it names the place, and for a job its index in the visit. Every message is a list
of words, in the order in which things happened.

The board of a process is seen by both: whether the run drains, and for each place what has begun
there. It tells what a process was at when it died, whatever it had no time to say.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, Final, NamedTuple

from cronrunner.events import Event
from cronrunner.model import Key, Outcome, Request, Result, RetryPolicy, Tenant, VisitRequest

#: Of a result, what the run knows itself: the request and its server; the policy, which may name
#: exceptions of a job's own; and whether there is another attempt.
_KNOWN: Final = {"request", "server", "policy", "final"}
#: What is made of other values before it is sent.
_CHANGED: Final = {"outcome", "counters", "started_at"}
#: What is sent as it is, if it is not what it is by default.
_PLAIN: Final = {
    field.name: field.default for field in fields(Result) if field.name not in _KNOWN | _CHANGED
}
_plain_values: Final = attrgetter(*_PLAIN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed(VisitRequest):
    """A visit that a process was given."""

    place: int
    #: The run waits to hear that it has its session.
    is_awaited: bool = False


# What the run says.


class Visits(NamedTuple):
    """Make these visits; each as ``pack_visit`` makes it."""

    packed: list[tuple[Any, ...]]


class Learn(NamedTuple):
    """Something that visits are going to ask for."""

    what: Any


class GiveBack(NamedTuple):
    """End the visits that have not begun."""


class Drain(NamedTuple):
    """Begin nothing more, and give back what has not begun."""


class Cancel(NamedTuple):
    """Let every deadline expire."""


class Killed(NamedTuple):
    """The answer to a ``Kill``."""

    ticket: int
    answer: bool | None


class End(NamedTuple):
    """Nothing more is to be done."""


# What a process says.


class Ready(NamedTuple):
    """Visits may come."""


class Started(NamedTuple):
    """An attempt begins: said if somebody waits to read of it, and otherwise with its result."""

    place: int


class Reached(NamedTuple):
    """A visit that is awaited has its session."""

    place: int


class Ended(NamedTuple):
    """An attempt has ended; its result as ``pack_result`` makes it."""

    place: int
    result: tuple[Any, ...]


class Stuck(NamedTuple):
    """An attempt cannot be ended; its thread was replaced, and its visit is over."""

    place: int
    result: tuple[Any, ...]


class Over(NamedTuple):
    """A visit is over; after so many seconds, or without having begun.

    Most visits have one job: its result comes with this.
    """

    place: int
    seconds: float | None
    result: tuple[Any, ...] | None = None


class Told(NamedTuple):
    """Something else happened."""

    event: Event


class Written(NamedTuple):
    """A line for the log."""

    line: str


class Kill(NamedTuple):
    """A session's statement, or the session, is to be ended at its server."""

    ticket: int
    server: str
    number: int
    sever: bool


class Broke(NamedTuple):
    """A visit broke its thread."""

    what: str


def pack_visit(visit: VisitRequest, place: int, *, is_awaited: bool) -> tuple[Any, ...]:
    """Return a visit as plain values."""
    tenant = visit.tenant
    return (
        place,
        is_awaited,
        (tenant.name, tenant.server, tenant.database, dict(tenant.labels), tenant.timezone),
        [
            (r.key.job, r.key.slot_key, r.run, r.slot.timestamp(), r.attempt, r.fence, r.dry_run)
            for r in visit.requests
        ],
    )


def unpack_visit(packed: tuple[Any, ...]) -> Handed:
    """Return the visit."""
    place, is_awaited, (name, server, database, labels, timezone), requests = packed
    return Handed(
        tenant=Tenant(
            name=name, server=server, database=database, labels=labels, timezone=timezone
        ),
        requests=tuple(
            Request(
                key=Key(job=job, tenant=name, slot_key=slot_key),
                run=run,
                slot=datetime.fromtimestamp(slot, UTC),
                attempt=attempt,
                fence=fence,
                dry_run=dry_run,
            )
            for job, slot_key, run, slot, attempt, fence, dry_run in requests
        ),
        place=place,
        is_awaited=is_awaited,
    )


def pack_result(result: Result) -> tuple[Any, ...]:
    """Return a result as plain values."""
    # Counters may be of a class that derives from int.
    counters = {name: int(count) for name, count in result.counters.items()}
    values = zip(_PLAIN.items(), _plain_values(result), strict=True)
    plain = {name: value for (name, usual), value in values if value is not usual}
    return result.outcome.value, counters, result.started_at.timestamp(), plain


def unpack_result(
    packed: tuple[Any, ...], request: Request, server: str, policy: RetryPolicy | None
) -> Result:
    """Return the result of a request."""
    outcome, counters, started, plain = packed
    return Result(
        request=request,
        server=server,
        outcome=Outcome(outcome),
        counters=counters,
        started_at=datetime.fromtimestamp(started, UTC),
        policy=policy,
        **plain,
    )


def may_be_repeated(packed: tuple[Any, ...]) -> bool:
    """Tell whether a result is worth repeating, if its job's policy says so."""
    return "transient" in packed[-1]


class Board:
    """What the run and a process see at once."""

    #: For each place: how many of its jobs have begun, when the last one did, and the server's
    #: number of its session.
    _OF_A_PLACE: Final = 3

    def __init__(self, numbers: memoryview) -> None:
        self._numbers = numbers

    @classmethod
    def size(cls, places: int) -> int:
        """Return how many numbers a board of so many places takes."""
        return 1 + cls._OF_A_PLACE * places

    @property
    def is_draining(self) -> bool:
        """Tell whether nothing more is to begin."""
        return bool(self._numbers[0])

    def drain(self) -> None:
        """Let nothing more begin; also from a signal handler."""
        self._numbers[0] = 1

    def clear(self, place: int) -> None:
        """Make a place ready for another visit."""
        at = 1 + self._OF_A_PLACE * place
        self._numbers[at] = self._numbers[at + 2] = 0

    def begin(self, place: int, count: int) -> None:
        """Note that so many jobs of a visit have begun by now."""
        at = 1 + self._OF_A_PLACE * place
        self._numbers[at + 1] = time.monotonic_ns()
        self._numbers[at] = count

    def open(self, place: int, session: int) -> None:
        """Note the server's number of a visit's session."""
        self._numbers[1 + self._OF_A_PLACE * place + 2] = session

    def begun(self, place: int) -> int:
        """Return how many jobs of a visit have begun."""
        return self._numbers[1 + self._OF_A_PLACE * place]

    def since(self, place: int) -> float:
        """Return when the last of them did, in monotonic seconds."""
        return self._numbers[1 + self._OF_A_PLACE * place + 1] / 1e9

    def session(self, place: int) -> int | None:
        """Return the server's number of a visit's session, if it has one."""
        return self._numbers[1 + self._OF_A_PLACE * place + 2] or None
