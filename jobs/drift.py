"""What state a control is in, what it means that the state is another, and how often that was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from jobs.schema import compliance_snapshots

if TYPE_CHECKING:
    from cronrunner import JobContext

#: The states of a control, best first.
STATUSES: Final = ("compliant", "warning", "non_compliant", "not_assessed")

_BY_RESULT: Final = {"pass": "compliant", "warning": "warning", "fail": "non_compliant"}
#: How bad it is that a control has got into this state.
_SEVERITY: Final = {"warning": "high", "non_compliant": "critical", "not_assessed": "medium"}

#: Days up to the slot over which changes are added up.
_WINDOWS: Final = (7, 30, 90)
_ADDED_UP: Final = ("regressions", "improvements")
#: The counters that say so.
OF_WINDOWS: Final = tuple(f"{what}_{days}d" for days in _WINDOWS for what in _ADDED_UP)

#: As it is kept: ``control_id``, ``old``, ``new``, ``kind``, ``severity``.
Change = dict[str, Any]


def assess(result: str | None, valid_until: date | None, today: date) -> str:
    """Return the state that the newest evidence puts a control in; none has ``result`` ``None``.

    A pass that was valid until yesterday is a warning. Raises ``ValueError`` for a result that
    is not known.
    """
    if result is None:
        return "not_assessed"
    if result not in _BY_RESULT:
        msg = f"expected a result of {', '.join(_BY_RESULT)}, got another one"
        raise ValueError(msg)
    is_over = valid_until is not None and valid_until < today
    return "warning" if result == "pass" and is_over else _BY_RESULT[result]


def compare(old: Mapping[str, str], new: Mapping[str, str]) -> list[Change]:
    """Return what has changed from one snapshot's states by control to the next one's."""
    ids = sorted(old.keys() | new.keys(), key=int)
    return [
        _change(each, old.get(each), new.get(each))
        for each in ids
        if old.get(each) != new.get(each)
    ]


def _change(control: str, old: str | None, new: str | None) -> Change:
    kind = _kind(old, new)
    severity = _SEVERITY[new] if kind == "regression" and new is not None else None
    return {
        "control_id": int(control), "old": old, "new": new, "kind": kind, "severity": severity,
    }  # fmt: skip


def _kind(old: str | None, new: str | None) -> str:
    if old is None:
        return "added"
    if new is None:
        return "removed"
    is_better = new == "compliant" or (old, new) == ("non_compliant", "warning")
    return "improvement" if is_better else "regression"


def count(changes: Iterable[Change]) -> Counter[str]:
    """Count changes under the names of the job's counters."""
    plural = {"regression": "regressions", "improvement": "improvements"}
    counted: Counter[str] = Counter()
    for change in changes:
        kind: str = change["kind"]
        counted[plural.get(kind, kind)] += 1
        if change["severity"] is not None:
            counted[change["severity"]] += 1
    return counted


def of_windows(ctx: JobContext) -> dict[str, int]:
    """Add up a tenant's changes in each window, from the snapshots that are kept of it."""
    snapshot = compliance_snapshots.c
    since = ctx.slot - timedelta(days=max(_WINDOWS))
    kept = select(snapshot.slot, snapshot.changes).where(
        snapshot.slot > since, snapshot.slot <= ctx.slot
    )
    counters = dict.fromkeys(OF_WINDOWS, 0)
    for row in ctx.connection.execute(kept):
        counted = count(row.changes)
        for days in _WINDOWS:
            if row.slot > ctx.slot - timedelta(days=days):
                for what in _ADDED_UP:
                    counters[f"{what}_{days}d"] += counted[what]
    return counters


def add_up(ctx: JobContext) -> Mapping[str, int]:
    """Log how many controls of the fleet have got worse and better in each window."""
    totals = dict.fromkeys(("tenants", *OF_WINDOWS), 0)
    for result in ctx.results():
        totals["tenants"] += result["outcome"] == "succeeded"
        for name in OF_WINDOWS:
            totals[name] += result["counters"].get(name, 0)
    for days in _WINDOWS:
        found = {what: totals[f"{what}_{days}d"] for what in _ADDED_UP}
        ctx.log.info("compliance.drift", days=days, tenants=totals["tenants"], **found)
    return totals
