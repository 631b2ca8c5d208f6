"""What the rows of one tenant depend on, and the words that they are made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import Enum
from random import Random
from typing import Any, Final

from jobs.local_time import Window, local_date, local_day

Row = dict[str, Any]

SECOND: Final = timedelta(seconds=1)

_FIRST: Final = ("Zoë", "Amara", "Jörg", "Priya", "Li", "Mateo", "Siân", "Oluwaseun", "Ана", "Kai")
_LAST: Final = ("李 🎁", "O'Neill", "Müller", "Nguyễn", "Smith", "García", "de Vries", "Иванова")
_VERBS: Final = ("Renew", "Review", "Replace", "Document", "Approve", "Test", "Move", "Close")
_THINGS: Final = (
    *("the firewall", "a supplier's contract", "the “blue” laptops", "100 % of the keys"),
    *("the café's accounts", "last year's backup", "the fire drill", "émigré files"),
)


class Mood(Enum):
    """How healthy a tenant is made to look; which side of a limit its rows are on."""

    #: On the good side of every limit, and often exactly on it.
    WELL = 0
    #: A second or a row over the limits of a warning.
    WORRYING = 1
    #: A second or a row over the limits of a failure.
    FAILING = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One tenant at one instant."""

    seed: int
    tenant: str
    index: int
    zone: str
    #: The slot on whose boundaries rows stand.
    at: datetime
    #: How many times as many ordinary rows there are.
    scale: int = 1

    def random(self, table: str) -> Random:
        """Return the generator of a table: tables can be added without changing the others."""
        return Random(f"{self.seed}:{self.tenant}:{table}")

    @property
    def mood(self) -> Mood:
        """Take turns, so that each kind of health is somewhere in the fleet."""
        return Mood(self.index % len(Mood))

    def ago(self, **parts: float) -> datetime:
        """Return an instant before the slot: ``ago(days=30)``."""
        return self.at - timedelta(**parts)

    @property
    def today(self) -> date:
        """The tenant's own date at the slot."""
        return local_date(self.at, self.zone)

    @property
    def yesterday(self) -> Window:
        """The instants of the tenant's own yesterday."""
        return local_day(self.today - timedelta(days=1), self.zone)

    def edges_of_yesterday(self) -> Iterator[datetime]:
        """Yield the first and last second of yesterday, and the seconds next to them."""
        start, end = self.yesterday
        yield from (start - SECOND, start, end - SECOND, end)

    def edges_of_last_month(self) -> Iterator[datetime]:
        """Yield the same of the last month that is over in UTC."""
        end = self.at.replace(day=1, hour=0, minute=0, second=0)
        start = (end - SECOND).replace(day=1, hour=0, minute=0, second=0)
        yield from (start - SECOND, start, end - SECOND, end)

    def within(self, source: Random, **parts: float) -> datetime:
        """Return some whole second of the time before yesterday: ``within(source, days=60)``."""
        seconds = int(timedelta(**parts).total_seconds())
        return self.yesterday.start - timedelta(seconds=source.randrange(1, seconds))


def person(source: Random) -> str:
    """Return a name that not every program gets right."""
    return f"{source.choice(_FIRST)} {source.choice(_LAST)}"


def errand(source: Random) -> str:
    """Return the title of something to be done."""
    return f"{source.choice(_VERBS)} {source.choice(_THINGS)}"


def digest(source: Random) -> str:
    """Return 64 hexadecimal digits, as a hash has them."""
    return f"{source.getrandbits(256):064x}"
