"""Which tenants there are: their names, their zones, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import cycle, islice
from typing import Final


class Defect(StrEnum):
    """What is wrong with a tenant, in the order in which tenants get it."""

    NONE = "none"
    BAD_ROWS = "bad_rows"
    MISSING_TABLE = "missing_table"
    SLOW = "slow"
    LOCKED = "locked"
    EMPTY = "empty"
    UNREACHABLE = "unreachable"
    LARGE = "large"

    @property
    def meaning(self) -> str:
        """Say what it is like to have it."""
        return _MEANINGS[self]


#: With every shipped job one after another, a slow tenant takes as long as a locked one.
DELAY_MS: Final = 300

_MEANINGS: Final = {
    Defect.NONE: "nothing is wrong",
    Defect.BAD_ROWS: "rows that no job can use",
    Defect.MISSING_TABLE: "a migration went wrong: rate_limits is missing",
    Defect.SLOW: f"waits {DELAY_MS} ms before each job",
    Defect.LOCKED: "another session holds a lock",
    Defect.EMPTY: "a database without any table",
    Defect.UNREACHABLE: "cannot be connected to",
    Defect.LARGE: "fifty times as many rows",
}

NAMES: Final = ("acorn", "birch", "cedar", "dahlia", "elm", "fern", "gorse", "hazel")

ZONES: Final = (
    "UTC",
    "America/New_York",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "Pacific/Kiritimati",
    "Europe/Berlin",
)

#: Tenants that discovery must leave out: one that the glob misses, one that is excluded.
DECOYS: Final = ("mysql_backup", "agency_tmp_x")
#: A tenant on SQLite whose file holds no database.
CORRUPT: Final = "agency_corrupt"

#: There is a lawsuit.
_ON_HOLD: Final = "agency_acorn2"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoTenant:
    """One tenant of the fleet."""

    index: int
    name: str
    zone: str
    defect: Defect = Defect.NONE

    @property
    def is_on_hold(self) -> bool:
        """Tell whether nothing may be removed of it, as its labels say."""
        return self.name == _ON_HOLD


def fleet(count: int, defects: Mapping[str, Defect] | None = None) -> tuple[DemoTenant, ...]:
    """Return the first ``count`` tenants; ``defects`` overrides what is wrong by name.

    Raises ``ValueError`` for a name that is not among them.
    """
    given = defects or {}
    planned = zip(islice(cycle(ZONES), count), islice(cycle(Defect), count), strict=True)
    tenants = tuple(
        DemoTenant(index=index, name=name_of(index), zone=zone, defect=defect)
        for index, (zone, defect) in enumerate(planned)
    )
    if unknown := given.keys() - {tenant.name for tenant in tenants}:
        msg = f"expected names of the {count} tenants, got {', '.join(sorted(unknown))}"
        raise ValueError(msg)
    return tuple(
        replace(tenant, defect=given.get(tenant.name, tenant.defect)) for tenant in tenants
    )


def name_of(index: int) -> str:
    """Return ``agency_acorn``, ``agency_birch`` and so on, then ``agency_acorn2``."""
    generation, position = divmod(index, len(NAMES))
    return f"agency_{NAMES[position]}{generation + 1 if generation else ''}"
