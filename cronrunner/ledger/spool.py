"""The spool: a file that takes a run's outcomes when its ledger is gone for good.

The file
    ``<folder>/<run>.spool``: lines of JSON, written in place over bytes that were reserved
    before they were needed, so that a full disk cannot take their room away; what is not
    written yet is zeros. The first line is the run's row, the last one its end, if it came so
    far. A line without its newline was cut off, and is none.

Who may read it
    The run holds a lock on the file as long as its process lives, and the kernel releases it
    whatever ends the process. Who gets the lock may import the file and remove it.

What it survives
    The death of the process at any point: each line is with the kernel when ``add`` returns.
    A loss of power, but for the last tenth of a second.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final

from sqlalchemy import Table

from cronrunner.ledger.recording import unrecordable
from cronrunner.ledger.spools import SUFFIX, left_behind
from cronrunner.ledger.tables import Instant, runs
from cronrunner.model import Key, Outcome, Request, Result, Spooled

_FORMAT: Final = 1
_MIB: Final = 1024 * 1024
#: Reserved for each planned execution: a success takes a third of it, a long error three times.
_EXECUTION: Final = 1024
#: Reserved at the beginning, and whenever less than half of it is left.
_CHUNK: Final = _MIB
#: The most that is reserved before it is known to be needed.
_MOST: Final = 16 * _MIB
_SYNC_SECONDS: Final = 0.1
#: What a result is made of beyond its request, and is left out where it says nothing.
_OPTIONAL: Final = ("reason", "error", "cause", "code", "note", "value")


@dataclass(slots=True, kw_only=True)
class SpoolContent:
    """What a spool holds."""

    #: The row of the run as it began; ``None`` if not even that can be read.
    run: dict[str, Any] | None
    results: list[Result] = field(default_factory=list)
    #: What its row gets at its end; ``None`` if it was killed before.
    end: dict[str, Any] | None = None
    #: False if there is a line that cannot be read; what comes before it is here.
    is_intact: bool = True


class Spool:
    """The spool of a run that is alive. Not thread-safe."""

    def __init__(self, folder: Path, run: Mapping[str, Any]) -> None:
        """Make the file and reserve its room. Raises ``OSError``."""
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{run['run']}{SUFFIX}"
        # Under another name until it is locked: whoever finds it unlocked may remove it.
        unready = self._path.with_suffix(".unready")
        self._file = os.open(unready, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._written = self._reserved = self._outcomes = self._lost = 0
        self._synced_at = -_SYNC_SECONDS
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._reserve(_CHUNK)
            self._append({"spool": _FORMAT, "run": run})
            unready.rename(self._path)
        except OSError:
            os.close(self._file)
            unready.unlink()
            raise
        self._empty = self._written

    def expect(self, executions: int) -> None:
        """Reserve room for so many outcomes. Raises ``OSError``."""
        self._reserve(min(self._written + executions * _EXECUTION, _MOST))

    def add(self, results: Iterable[Result]) -> None:
        """Write outcomes; one for which there is no room is counted."""
        for each in results:
            try:
                self._append_result(each)
            except OSError:
                self._lost += each.final
            else:
                self._outcomes += each.final
        self._sync()

    def end(self, values: Mapping[str, Any]) -> Spooled:
        """Write the end of the run, and say what is here."""
        with suppress(OSError):
            self._append({"end": values})
        return Spooled(path=str(self._path), outcomes=self._outcomes, lost=self._lost)

    def close(self) -> None:
        """Let the next command have the file, or remove it if it holds nothing."""
        if self._written == self._empty:
            with suppress(OSError):
                self._path.unlink()
        else:
            self._synced_at = -_SYNC_SECONDS
            self._sync()
        os.close(self._file)

    def _append_result(self, result: Result) -> None:
        try:
            self._append(_document(result))
        except (TypeError, ValueError) as error:
            self._append(_document(unrecordable(result, error)))

    def _append(self, document: Mapping[str, Any]) -> None:
        text = json.dumps(document, separators=(",", ":"), default=_text_of_time)
        line = text.encode() + b"\n"
        end = self._written + len(line)
        if end + _CHUNK // 2 > self._reserved:
            with suppress(OSError):
                self._reserve(end + _CHUNK)
        # Nothing is written but where there is room: half a line would spoil what comes after.
        self._reserve(end)
        os.pwrite(self._file, line, self._written)
        self._written = end

    def _reserve(self, size: int) -> None:
        if size > self._reserved:
            os.posix_fallocate(self._file, 0, size)
            self._reserved = size

    def _sync(self) -> None:
        """Bring what is written to the disk, if that was not done just now."""
        if time.monotonic() - self._synced_at < _SYNC_SECONDS:
            return
        with suppress(OSError):
            os.fsync(self._file)
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        self._synced_at = time.monotonic()


def waiting_bytes(folder: Path) -> int:
    """Return how much is in the spools of a folder beyond the rows of their runs."""
    total = 0
    for path in left_behind(folder):
        # Somebody may be importing it.
        with suppress(OSError), path.open("rb") as file:
            total += sum(map(len, islice(_lines(file), 1, None)))
    return total


@contextmanager
def taken(path: Path) -> Iterator[BinaryIO | None]:
    """Give a spool, locked; ``None`` if its run is alive, or another command has it.

    Raises ``OSError`` when it cannot be opened.
    """
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        # Another command may have imported and removed it before the lock was ours.
        is_there = os.fstat(file.fileno()).st_nlink > 0
        yield file if is_there else None


def read(file: BinaryIO) -> SpoolContent:
    """Read a spool as far as it can be read. Raises ``OSError``."""
    content = SpoolContent(run=None)
    try:
        for line in _lines(file):
            _take(content, json.loads(line))
    except (ValueError, KeyError, TypeError, AttributeError):
        content.is_intact = False
    return content


def _take(content: SpoolContent, document: Mapping[str, Any]) -> None:
    if content.run is None:
        if document["spool"] != _FORMAT:
            raise ValueError(document["spool"])
        content.run = _row(runs, {"run": document["run"]["run"], **document["run"]})
    elif "end" in document:
        content.end = _row(runs, document["end"])
    else:
        content.results.append(_result(document, content.run["run"]))


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Give the whole lines, as far as the file was written."""
    for line in file:
        if not line.endswith(b"\n") or line.startswith(b"\0"):
            return
        yield line


def _document(result: Result) -> dict[str, Any]:
    request = result.request
    document = {
        "job": request.key.job,
        "tenant": request.key.tenant,
        "slot_key": request.key.slot_key,
        "slot": request.slot,
        "attempt": request.attempt,
        "fence": request.fence,
        "server": result.server,
        "outcome": result.outcome.value,
        "started_at": result.started_at,
        "duration_seconds": result.duration_seconds,
        "by_job": result.by_job,
        "attempted": result.attempted,
        "final": result.final,
        "counters": dict(result.counters),
    }
    said = {name: getattr(result, name) for name in _OPTIONAL}
    return document | {name: value for name, value in said.items() if value is not None}


def _result(document: Mapping[str, Any], run: str) -> Result:
    optional: dict[str, Any] = {name: document.get(name) for name in _OPTIONAL}
    key = Key(job=document["job"], tenant=document["tenant"], slot_key=document["slot_key"])
    return Result(
        request=Request(
            key=key,
            run=run,
            slot=datetime.fromisoformat(document["slot"]),
            attempt=document["attempt"],
            fence=document["fence"],
        ),
        server=document["server"],
        outcome=Outcome(document["outcome"]),
        started_at=datetime.fromisoformat(document["started_at"]),
        duration_seconds=document["duration_seconds"],
        by_job=document["by_job"],
        attempted=document["attempted"],
        final=document["final"],
        counters=document["counters"],
        **optional,
    )


def _row(table: Table, document: Mapping[str, Any]) -> dict[str, Any]:
    """Read a row; names that the table does not have are a ``KeyError``."""
    return {
        name: datetime.fromisoformat(value)
        if value is not None and isinstance(table.c[name].type, Instant)
        else value
        for name, value in document.items()
    }


def _text_of_time(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(type(value).__name__)
