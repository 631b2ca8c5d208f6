"""What keeps a tenant's database, its backups and the log files in good order."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cronrunner import Option, Skip, job
from jobs.items import Items
from jobs.log_files import Rotated, archive, in_use, rotate, rotated
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

    From: Risk Legion: VACUUM ANALYZE
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


@job(
    schedule="0 2 * * *",
    retries=2,
    timeout="30m",
    scope="fleet",
    effects="repeatable",
    options={
        "dir": Option(
            "", help="the folder in which the log files are", environment="CRONRUNNER_LOG_DIR"
        ),
        "patterns": Option(("*.log",), help="names of the log files"),
        "copytruncate": Option(default=False, help="empty the files instead of beginning new ones"),
        "compress_days": Option(7, help="days after which a file is compressed", minimum=0),
        "archive_dir": Option("", help="a folder to which compressed files are moved"),
        "keep_days": Option(90, help="a file of more days than these is deleted", minimum=1),
    },
)
def rotate_logs(ctx: JobContext) -> Mapping[str, int]:
    """Put the log files of the day aside, compress those of last week, delete the old ones.

    A file ``x.log`` with something in it becomes ``x.log-20260301``, by the slot's date in UTC,
    and an empty one takes its place; a program that keeps its file open needs
    ``copytruncate``. A day's file that is there already is not touched again: what was written
    since then waits for the next day. Rotated files of ``compress_days`` days ago or more are
    compressed, and moved to ``archive_dir`` if there is one; those of more than ``keep_days``
    days are deleted, here and there. Nothing is overwritten: a file whose compressed name is
    taken is an error. Links and what is no regular file are left alone, and so
    are folders within the folder. Relative paths begin at the folder in which cronrunner was
    started. Without a folder of log files the job is skipped.

    Counters:
      rotated: files that were put aside
      compressed: files that were compressed
      deleted: files that were too old
      already: files that were put aside for this day before
      empty: files with nothing in them
      errors: files that could not be dealt with

    From: Risk Legion: log rotation; AgencyStack: log rotation
    """
    if not ctx.options["dir"]:
        msg = "no folder of log files is configured"
        raise Skip(msg)
    names = ("rotated", "compressed", "deleted", "already", "empty", "errors")
    counters = Counter(dict.fromkeys(names, 0))
    patterns = ctx.options["patterns"]
    folders = _folders(ctx)
    for path in in_use(folders[0], patterns):
        ctx.check()
        with _apart(ctx, counters, path):
            counters[_rotate(ctx, path, folders)] += 1
    for file in [file for folder in folders for file in rotated(folder, patterns)]:
        ctx.check()
        with _apart(ctx, counters, file.path):
            counters.update(_tidy(ctx, file, home=folders[-1]))
    return counters


@contextmanager
def _apart(ctx: JobContext, counters: Counter[str], path: Path) -> Iterator[None]:
    """Do what is to be done with one file: what is wrong with it does not stop the others."""
    try:
        yield
    except OSError as error:
        counters["errors"] += 1
        ctx.log.warning("item.failed", item=path.name, error=error.strerror)


def _folders(ctx: JobContext) -> list[Path]:
    """Return the folder of log files, and last that of the compressed. Raises ``OSError``."""
    names = [ctx.options["dir"], ctx.options["archive_dir"]]
    folders = [Path(name) for name in names if name]
    return folders[:1] if folders[0].samefile(folders[-1]) else folders


def _rotate(ctx: JobContext, path: Path, folders: Sequence[Path]) -> str:
    """Put one file aside; return the name of its counter."""
    name = f"{path.name}-{ctx.slot:%Y%m%d}"
    known = [folder / f"{name}{end}" for folder in folders for end in ("", ".gz")]
    if any(map(os.path.lexists, known)):
        return "already"
    if not path.stat().st_size:
        return "empty"
    rotate(path, path.with_name(name), copy=ctx.options["copytruncate"], check=ctx.check)
    return "rotated"


def _tidy(ctx: JobContext, file: Rotated, *, home: Path) -> list[str]:
    """Deal with one file of an earlier day; return the names of its counters."""
    days = (ctx.slot.date() - file.day).days
    if days > ctx.options["keep_days"]:
        file.path.unlink()
        return ["deleted"]
    is_settled = file.is_compressed and file.path.parent == home
    if days < ctx.options["compress_days"] or is_settled:
        return []
    archive(file, home, ctx.check)
    return [] if file.is_compressed else ["compressed"]
