"""Access reviews: who may do what here, and who should."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Row as SqlRow
from sqlalchemy import insert, select, update

from cronrunner import Option, job
from jobs.batches import BATCH_SIZE
from jobs.comparing import Finding, compare
from jobs.datasets import Reader, UnusableError
from jobs.items import Items
from jobs.local_time import local_date
from jobs.periods import Period, period_of
from jobs.schema import uar_comparisons, uar_executions, uar_findings
from jobs.wording import shorten

if TYPE_CHECKING:
    from cronrunner import JobContext

#: Widths of the columns of ``uar_findings``.
_KEY_LIMIT: Final = 191
_FIELD_LIMIT: Final = 100


@job(
    schedule="0 * * * *",
    timeout="30m",
    retries=2,
    options={
        "max_attempts": Option(3, help="slots in which a review of one period is tried", minimum=1),
        "allow_empty": Option(default=False, help="whether a dataset may have no rows"),
        "max_rows": Option(200_000, help="rows of a dataset that are compared at most", minimum=1),
    },
)
def execute_due(ctx: JobContext) -> Mapping[str, int]:
    """Compare who has access in two places, once a day, week or month.

    An enabled comparison is due from its run_hour on, local time, on its run_day: of the week for
    a weekly one (1 is Monday), of the month for a monthly one (the last day of shorter months), the
    first without one. It stays due until the period is over or its review is done, and a review
    that fails is tried again in later slots. A frequency, day or hour that is none is an error of
    its item.

    Rows are matched by row_key, in Unicode's composed form and case-sensitively. A row that is on
    one side only is missing_right or missing_left, each field that differs is changed, and of
    several rows with one key the lowest id counts while each of the others is a duplicate. An
    absent field is as good as null, 1 is 1.0 and not true, lists are ordered; ignore_fields are
    left out. A row whose attrs are no object is an error of its item and left out.

    A review fails when a dataset is empty, unless that is allowed, or has too many rows.

    Counters:
      due: comparisons whose review was due
      executed: reviews that were done
      failed: reviews that failed
      findings: differences that were found
      errors: comparisons that could not be read, and rows left out

    From: OpsDeck: user access review execution
    """
    counters = dict.fromkeys(("due", "executed", "failed", "findings"), 0)
    items = Items(ctx)
    reader = Reader(ctx, items)
    enabled = select(uar_comparisons).where(uar_comparisons.c.enabled.is_(True))
    for comparison in ctx.connection.execute(enabled.order_by(uar_comparisons.c.id)).all():
        with items.attempt(f"comparison:{comparison.id}"):
            review = _Review(ctx, reader, comparison)
            if review.is_due():
                counters["due"] += 1
                found = review.execute()
                counters["failed" if found is None else "executed"] += 1
                counters["findings"] += found or 0
    reader.keep_errors()
    return counters | {"errors": items.errors}


class _Review:
    """The review of one comparison in the period of the slot."""

    def __init__(self, ctx: JobContext, reader: Reader, comparison: SqlRow[Any]) -> None:
        self._ctx = ctx
        self._comparison = comparison
        self._ignored = _fields(comparison.ignore_fields)
        self._period = _period(ctx, comparison)
        self._earlier = self._find_earlier()
        self._left = reader.dataset(comparison.left_dataset)
        self._right = reader.dataset(comparison.right_dataset)

    def _find_earlier(self) -> SqlRow[Any] | None:
        execution = uar_executions.c
        mine = select(uar_executions).where(
            execution.comparison_id == self._comparison.id,
            execution.period_key == self._period.key,
        )
        return self._ctx.connection.execute(mine).one_or_none()

    def is_due(self) -> bool:
        """Tell whether it is to be done at this slot."""
        if self._ctx.slot < self._period.due_at:
            return False
        earlier = self._earlier
        if earlier is None:
            return True
        is_over = earlier.status == "done" or earlier.attempts >= self._ctx.options["max_attempts"]
        # A slot that is repeated does not try once more.
        return not is_over and earlier.slot < self._ctx.slot

    def execute(self) -> int | None:
        """Keep what differs; return how much it is, or ``None`` if the review fails."""
        try:
            with self._ctx.connection.begin_nested():
                found = self._compare()
        except UnusableError as error:
            self._keep(status="failed", error=str(error), findings=0)
            found = None
        self._ctx.log.info(
            "uar.reviewed",
            comparison=self._comparison.id,
            left=self._left.size,
            right=self._right.size,
            findings=found,
        )
        return found

    def _compare(self) -> int:
        execution_id = self._keep(status="done", error=None, findings=0)
        findings = compare(self._left, self._right, self._ignored)
        found = 0
        while batch := [_row_of(each, execution_id) for each in islice(findings, BATCH_SIZE)]:
            self._ctx.connection.execute(insert(uar_findings), batch)
            found += len(batch)
        if not (self._left.size and self._right.size) and not self._ctx.options["allow_empty"]:
            raise UnusableError("expected rows in both datasets, found none in one of them")
        self._set(
            execution_id, findings=found, rows_left=self._left.size, rows_right=self._right.size
        )
        return found

    def _keep(self, **values: object) -> int:
        """Store the execution of this period; return its id."""
        values |= {
            "slot": self._ctx.slot,
            "attempts": 1 if self._earlier is None else self._earlier.attempts + 1,
            "rows_left": self._left.size,
            "rows_right": self._right.size,
        }
        if self._earlier is not None:
            self._set(self._earlier.id, **values)
            return int(self._earlier.id)
        named = {"comparison_id": self._comparison.id, "period_key": self._period.key}
        kept = self._ctx.connection.execute(insert(uar_executions).values(named | values))
        return int(kept.lastrowid)

    def _set(self, execution_id: int, **values: object) -> None:
        mine = update(uar_executions).where(uar_executions.c.id == execution_id)
        self._ctx.connection.execute(mine.values(values))


def _period(ctx: JobContext, comparison: SqlRow[Any]) -> Period:
    zone = ctx.tenant.timezone
    day = 1 if comparison.run_day is None else comparison.run_day
    today = local_date(ctx.slot, zone)
    return period_of(today, comparison.frequency, day, comparison.run_hour, zone)


def _fields(names: object) -> frozenset[str]:
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        return frozenset(names)
    msg = f"expected ignore_fields to be a list of names, got {type(names).__name__}"
    raise TypeError(msg)


def _row_of(finding: Finding, execution_id: int) -> dict[str, object]:
    field = finding.field
    return {
        "execution_id": execution_id,
        "kind": finding.kind,
        "row_key": shorten(finding.key, _KEY_LIMIT),
        "field": None if field is None else shorten(field, _FIELD_LIMIT),
        "left_value": finding.left,
        "right_value": finding.right,
    }
