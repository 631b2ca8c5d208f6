"""What keeps a tenant's database, its backups and the log files in good order."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from cronrunner import Option, job
from jobs.items import Items
from jobs.optimizing import LockedError, autocommit, optimize, vacuum
from jobs.schema import metadata

if TYPE_CHECKING:
    from cronrunner import JobContext

#: A table is not begun when less is left.
_ENOUGH: Final = timedelta(seconds=60)
_VACUUM: Final = "VACUUM"


@job(
    schedule="0 3 * * 0",
    retries=2,
    timeout="30m",
    transaction="none",
    options={
        "tables": Option(
            (
                "framework_controls",
                "control_evidence",
                "compliance_snapshots",
                "work_items",
                "audit_log",
            ),
            help="which tables, or all",
            choices=("all", *sorted(metadata.tables)),
        ),
        "optimize": Option(default=False, help="also rebuild the tables (MySQL, MariaDB)"),
        "vacuum": Option(default=False, help="also rebuild the file at the end (SQLite)"),
        "lock_s": Option(
            5, help="how many seconds to wait for a table that is locked", minimum=1, maximum=60
        ),
    },
)
def optimize_tables(ctx: JobContext) -> Mapping[str, int]:
    """Let the database gather the statistics of its tables anew, and rebuild them if asked to.

    On MySQL and MariaDB that is ``ANALYZE TABLE``, or with ``optimize`` ``OPTIMIZE TABLE``, on
    SQLite ``ANALYZE``; with ``vacuum`` a ``VACUUM`` comes last there and counts like a table.
    They go one after another, each for itself: what is done stays done if a later one fails,
    and is not done again for the same slot. Writers wait while a table is rebuilt.

    A table that somebody holds for longer than ``lock_s`` seconds is left to the next slot. So
    are the remaining ones when less than a minute of the job's timeout is left. A table that
    is not there fails the job.

    Counters:
      done: tables that were looked after
      locked: tables that somebody else held
      left: tables for which there was no time
      already: tables that were done for this slot before
      errors: tables of which the database says that something is wrong with them

    From: RL: VACUUM ANALYZE
    """
    counters = {"done": 0, "locked": 0, "left": 0, "already": 0, "errors": 0}
    items = Items(ctx)
    steps = _steps(ctx)
    wanted = [step for step in steps if not items.is_done_at_slot(step)]
    counters["already"] = len(steps) - len(wanted)
    for place, step in enumerate(wanted):
        if ctx.remaining() < _ENOUGH:
            counters["left"] = len(wanted) - place
            break
        counters[_take(ctx, items, step)] += 1
    return counters


def _steps(ctx: JobContext) -> list[str]:
    """Return the names of the tables, each once, and what follows them."""
    chosen = ctx.options["tables"]
    tables = sorted(metadata.tables) if "all" in chosen else list(dict.fromkeys(chosen))
    is_vacuumed = ctx.options["vacuum"] and ctx.connection.dialect.name == "sqlite"
    return [*tables, _VACUUM] if is_vacuumed else tables


def _take(ctx: JobContext, items: Items, step: str) -> str:
    """Do one step and keep what became of it; return the name of its counter."""
    with autocommit(ctx.connection, ctx.options["lock_s"]):
        try:
            wrong = _do(ctx, step)
        except LockedError:
            return "locked"
    # Not before: these statements end a transaction, and its savepoints with it.
    with items.attempt(step):
        if wrong is not None:
            raise wrong
        items.mark(step)
    ctx.connection.commit()
    return "done" if items.is_done_at_slot(step) else "errors"


def _do(ctx: JobContext, step: str) -> ValueError | None:
    """Do one step; return what the database says is wrong. Raises ``LockedError``."""
    if step == _VACUUM:
        vacuum(ctx.connection)
        return None
    try:
        optimize(ctx.connection, metadata.tables[step], rebuild=ctx.options["optimize"])
    except ValueError as error:
        return error
    return None
