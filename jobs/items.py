"""The items of a job: each fails for itself, and what is done for one is done once.

A job that works through items (assets, exchanges, comparisons) must not fail as a whole because
one of them is broken. Each is done in a savepoint of its own; what is wrong with one is kept in
``job_items``, where the health check finds it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, and_, delete, insert, select, true, update
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from jobs.schema import job_items
from jobs.wording import shorten

if TYPE_CHECKING:
    from cronrunner import JobContext

#: What is wrong with one item. Everything else ends the job: a deadlock takes savepoints along.
ITEM_ERRORS: Final = (ValueError, TypeError, LookupError, DataError, IntegrityError)
_DETAIL_LIMIT: Final = 500
_EVERY: Final = true()

_State = tuple[str, datetime]


class Items:
    """The items of the running job, and how many of them could not be done."""

    def __init__(self, ctx: JobContext) -> None:
        #: How many items have failed in this run of the job.
        self.errors = 0
        self._ctx = ctx
        #: State and slot by item: of those that failed, and of those that were asked for. A
        #: year's marks would be many times what one run looks at.
        self._known = self._failed()
        #: What was known of the items that the attempt in progress has marked.
        self._before: dict[str, _State | None] = {}

    @contextmanager
    def attempt(self, key: str) -> Iterator[None]:
        """Do one item, in a savepoint: what is wrong with it is kept, and the job goes on.

        Keys are made of ids and instants, never of names: MySQL takes ``a`` and ``A`` for equal.
        One attempt ends before another begins.
        """
        self._before = {}
        try:
            with self._ctx.connection.begin_nested():
                yield
        except ITEM_ERRORS as error:
            self.errors += 1
            self._take_back_marks()
            # Without the message: it may name what is in a row, and logs leave the tenant.
            self._ctx.log.warning("item.failed", item=key, error=type(error).__name__)
            self._keep_error(key, error)
        else:
            state = self._known.get(key)
            if state is not None and state[0] == "error":
                self._forget(key)

    def has_failed(self, key: str) -> bool:
        """Tell whether ``key`` could not be done the last time it was attempted."""
        known = self._known.get(key)
        return known is not None and known[0] == "error"

    def is_done(self, key: str) -> bool:
        """Tell whether ``key`` was marked, by this slot or an earlier one."""
        state = self._state(key)
        return state is not None and state[0] == "done"

    def is_done_at_slot(self, key: str) -> bool:
        """Tell whether ``key`` was marked by this slot or a later one."""
        state = self._state(key)
        return state is not None and state[0] == "done" and not state[1] < self._ctx.slot

    def mark(self, key: str) -> None:
        """Remember that ``key`` is done, as of this slot."""
        known = self._state(key)
        self._before.setdefault(key, known)
        self._keep(key, known, state="done", attempts=1, detail=None)

    def forget_absent(self, kind: ColumnElement[bool] = _EVERY) -> None:
        """Forget the items that failed earlier and did not come up in this run: they are gone.

        For a job that has looked at all of its items; the health check would else be warned of
        what was deleted or cancelled for ever. ``kind`` leaves out items of other kinds.
        """
        earlier = and_(self._is_failed(), job_items.c.slot < self._ctx.slot, kind)
        self._ctx.connection.execute(delete(job_items).where(earlier))

    def _failed(self) -> dict[str, _State | None]:
        failed = select(job_items.c.item, job_items.c.slot).where(self._is_failed())
        return {row.item: ("error", row.slot) for row in self._ctx.connection.execute(failed)}

    def _state(self, key: str) -> _State | None:
        if key not in self._known:
            kept = select(job_items.c.state, job_items.c.slot).where(self._is(key))
            row = self._ctx.connection.execute(kept).one_or_none()
            self._known[key] = None if row is None else (row.state, row.slot)
        return self._known[key]

    def _keep_error(self, key: str, error: Exception) -> None:
        known = self._state(key)
        text = str(error.orig) if isinstance(error, DBAPIError) else str(error)
        detail = shorten(f"{type(error).__name__}: {text}", _DETAIL_LIMIT)
        attempts: Any = 1
        if known is not None and known[0] == "error":
            # Repeating a slot does not make it worse.
            attempts = job_items.c.attempts + int(known[1] != self._ctx.slot)
        self._keep(key, known, state="error", attempts=attempts, detail=detail)

    def _keep(self, key: str, known: _State | None, *, state: str, **values: object) -> None:
        row = {"state": state, "slot": self._ctx.slot, **values}
        if known is None:
            named = {"job": self._ctx.job, "item": key}
            self._ctx.connection.execute(insert(job_items).values(named | row))
        else:
            self._ctx.connection.execute(update(job_items).where(self._is(key)).values(row))
        self._known[key] = (state, self._ctx.slot)

    def _take_back_marks(self) -> None:
        self._known |= self._before

    def _forget(self, key: str) -> None:
        self._ctx.connection.execute(delete(job_items).where(self._is(key)))
        self._known[key] = None

    def _is_failed(self) -> ColumnElement[bool]:
        return and_(job_items.c.job == self._ctx.job, job_items.c.state == "error")

    def _is(self, key: str) -> ColumnElement[bool]:
        return and_(job_items.c.job == self._ctx.job, job_items.c.item == key)
