"""A slot that is run twice changes nothing the second time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

from cronrunner.testing.tenant import JobName, Row, ThrowawayTenant

#: Rows of a table that are shown.
_SHOWN: Final = 5


def assert_idempotent(tenant: ThrowawayTenant, job: JobName, **given: Any) -> dict[str, int]:
    """Run a slot twice and return the counters of the second time.

    ``given`` is what ``tenant.run`` takes. Raises ``AssertionError`` with the rows that the second
    run has added, changed or removed, and whatever the job raises.
    """
    tenant.run(job, **given)
    before = tenant.content()
    counters = tenant.run(job, **given)
    after = tenant.content()
    tables = sorted(before.keys() | after.keys())
    changes = [
        line
        for table in tables
        for line in _changes(table, before.get(table, []), after.get(table, []))
    ]
    if changes:
        raise AssertionError("\n".join(["the second run of the slot changed rows:", *changes]))
    return counters


def _changes(table: str, before: Sequence[Row], after: Sequence[Row]) -> Iterator[str]:
    # Counted: a table without a key may have equal rows.
    then, now = Counter(map(repr, before)), Counter(map(repr, after))
    lines = [f"  {table}: only before it: {row}" for row in (then - now).elements()]
    lines += [f"  {table}: only after it: {row}" for row in (now - then).elements()]
    yield from lines[:_SHOWN]
    if len(lines) > _SHOWN:
        yield f"  {table}: and {len(lines) - _SHOWN} more"
