"""Work in batches: each is one transaction, committed with its checkpoint.

What a job has done of a slot is known by the last key of its last batch, and that stands in the
tenant's own database (``databases.checkpoints``): no ledger elsewhere could be committed with it.

==========================================  =================================================
what happens                                where the slot is gone on with
==========================================  =================================================
the body raises, the deadline expires, the  after the last batch that was committed: the open
session or the process is lost              one is rolled back, and its checkpoint with it
another process moves the checkpoint, as    there; this one ends as ``skipped (overlap)`` with
the lease of this one was lost              its open batch rolled back
it rolls back, or goes on after a deadlock  as if it had raised: ``BatchError``
the body leaves the loop by ``break``       after that batch: it is committed with what follows
the job returns                             nowhere: the commit takes the checkpoints along
==========================================  =================================================

In a dry run nothing is committed, and the checkpoints are kept here alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, select

from cronrunner.databases import checkpoints
from cronrunner.databases.checkpoints import Last
from cronrunner.errors import BatchError
from cronrunner.model import Key

#: Gives what comes after a key, in order; first after ``None``. Empty when that was all.
NextAfter = Callable[[Last], Sequence[Any]]


class Batching:
    """The batches of one attempt, over however many sources."""

    def __init__(  # noqa: PLR0913 - each has a name of its own
        self,
        connection: Connection,
        key: Key,
        *,
        clock: Callable[[], datetime],
        commit: Callable[[], None],
        check: Callable[[], None],
        dry_run: bool,
    ) -> None:
        """Read how far the slot is; ``connection`` is new.

        ``commit`` ends one transaction and begins the next. ``check`` raises when no time is left.
        """
        self._connection = connection
        self._key = key
        self._clock = clock
        self._commit = commit
        self._check = check
        self._dry_run = dry_run
        #: Name -> what its last batch ended with.
        self._lasts = checkpoints.read(connection, key, make=not dry_run)
        self._names: set[str] = set()
        self._is_within = False

    def over(
        self, next_after: NextAfter, name: str, key: Callable[[Any], Last]
    ) -> Iterator[Sequence[Any]]:
        """Give the batches of a source, from the checkpoint on; ``key`` is that of a member."""
        if name in self._names:
            msg = (
                f"expected another name than {name!r}: this job has batches of that name already;"
                " give each ctx.batches() a name= of its own"
            )
            raise BatchError(msg)
        self._names.add(name)
        return self._each(next_after, name, key)

    def _each(
        self, next_after: NextAfter, name: str, key: Callable[[Any], Last]
    ) -> Iterator[Sequence[Any]]:
        if self._is_within:
            msg = "expected one ctx.batches() after the other, got one within another"
            raise BatchError(msg)
        self._is_within = True
        try:
            while batch := next_after(self._lasts.get(name)):
                self._move(name, _as_json(key(batch[-1])))
                yield batch
                self._expect(name)
                self._commit()
                self._check()
        finally:
            self._is_within = False

    def _move(self, name: str, to: Last) -> None:
        since = self._lasts.get(name)
        if to == since:
            msg = f"expected what comes after {since!r}, got a batch that ends with it again"
            raise BatchError(msg)
        if not self._dry_run:
            now = self._clock()
            checkpoints.move(self._connection, self._key, name, since=since, to=to, now=now)
        self._lasts[name] = to

    def _expect(self, name: str) -> None:
        """Make sure that the batch is still there to be committed, and its checkpoint with it.

        A deadlock rolls the whole transaction back, and a job that goes on after one would leave
        the rows of this batch undone for good.
        """
        last = self._lasts[name]
        if not self._dry_run and not checkpoints.holds(self._connection, self._key, name, last):
            msg = (
                "the batch was rolled back within the loop, by the job or by the database"
                " (a deadlock); let its errors pass"
            )
            raise BatchError(msg)

    def end(self) -> None:
        """Have the commit that ends the job remove its checkpoints."""
        if self._lasts:
            for name in self._names & self._lasts.keys():
                self._expect(name)
            checkpoints.forget(self._connection, self._key, now=self._clock())


def keys_after(
    connection: Connection,
    column: Any,  # noqa: ANN401 - a column, or an attribute that is mapped to one
    where: ColumnElement[bool] | None,
    size: int,
) -> NextAfter:
    """Return what reads the keys of rows, in order, ``size`` at a time."""
    if size < 1:
        msg = f"expected a size of at least 1, got {size}"
        raise BatchError(msg)
    chosen = select(column).order_by(column).limit(size)
    if where is not None:
        chosen = chosen.where(where)

    def next_after(last: Last) -> Sequence[Any]:
        after = chosen if last is None else chosen.where(column > last)
        return connection.scalars(after).all()

    return next_after


def _as_json(key: object) -> Last:
    try:
        found = json.loads(json.dumps(key))
    except TypeError:
        found = None
    if found is None:
        msg = f"expected keys that JSON can hold (whole numbers, text), got {type(key).__name__}"
        raise BatchError(msg)
    return found
