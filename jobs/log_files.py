"""Log files of a folder: which there are, and what is done with one of them.

A file in use is ``x.log``; the same of an earlier day is ``x.log-20260301``, later
``x.log-20260301.gz``. What is written anew gets its name only when it is complete, so that
whoever is killed leaves nothing by half: names that begin with a dot are no log files.
"""

from __future__ import annotations

import errno
import gzip
import os
import re
import stat
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import date, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO, Final

_CHUNK_BYTES: Final = 1 << 20
#: The mode of a file until it has that of the one it comes from.
_PRIVATE: Final = 0o600
_ROTATED: Final = re.compile(r"(.+)-(\d{8})(\.gz)?", re.ASCII | re.DOTALL)

Check = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotated:
    """A log file of an earlier day."""

    path: Path
    day: date
    is_compressed: bool


def in_use(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """Return the regular files that are written to, by name. Raises ``OSError``."""
    files = _regular_files(folder)
    return [path for path in files if _is_meant(path.name, patterns) and not _parts(path.name)]


def rotated(folder: Path, patterns: Sequence[str]) -> list[Rotated]:
    """Return the regular files of earlier days, by name. Raises ``OSError``."""
    found = [(path, _parts(path.name)) for path in _regular_files(folder)]
    return [
        Rotated(path=path, day=parts[1], is_compressed=parts[2])
        for path, parts in found
        if parts and _is_meant(parts[0], patterns)
    ]


def rotate(path: Path, target: Path, *, copy: bool, check: Check) -> None:
    """Give a file the name of its day, and begin an empty one of the same mode and owner.

    With ``copy`` the file itself is emptied, for a program that goes on writing to it: what it
    writes between the copy and that is lost. Raises ``OSError``.
    """
    if copy:
        _write(path, target, check, compress=False)
        os.truncate(path, 0)
        return
    path.rename(target)
    # Whoever writes to it may have been faster.
    with suppress(FileExistsError):
        new = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _PRIVATE)
        _make_alike(new, target.stat())
        os.close(new)


def archive(file: Rotated, folder: Path, check: Check) -> None:
    """Compress a file unless it is, and move it to ``folder``. Raises ``OSError``."""
    target = folder / (file.path.name if file.is_compressed else f"{file.path.name}.gz")
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target.name)
    _write(file.path, target, check, compress=not file.is_compressed)
    file.path.unlink()


def _regular_files(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return sorted(
            folder / entry.name
            for entry in entries
            if entry.is_file(follow_symlinks=False) and not entry.name.startswith(".")
        )


def _is_meant(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _parts(name: str) -> tuple[str, date, bool] | None:
    """Take the name of a rotated file apart: of which file, of which day, whether compressed."""
    found = _ROTATED.fullmatch(name)
    if found is None:
        return None
    with suppress(ValueError):  # eight digits that are no date
        day = datetime.strptime(found[2], "%Y%m%d").date()  # noqa: DTZ007 - a date has no zone
        return found[1], day, found[3] is not None
    return None


def _write(source: Path, target: Path, check: Check, *, compress: bool) -> None:
    """Copy a file, and let the copy have its name when all of it is on the disk."""
    partial = target.with_name(f".{target.name}.partial")
    like = source.stat()
    try:
        descriptor = os.open(partial, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, _PRIVATE)
        with source.open("rb") as old, os.fdopen(descriptor, "wb") as new:
            _copy(old, new, like, check, compress=compress)
            new.flush()
            _make_alike(descriptor, like)
            os.fsync(descriptor)
        os.utime(partial, ns=(like.st_atime_ns, like.st_mtime_ns))
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _copy(
    old: BinaryIO, new: BinaryIO, like: os.stat_result, check: Check, *, compress: bool
) -> None:
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=new, mtime=like.st_mtime)
        if compress
        else nullcontext(new)
    ) as out:
        while chunk := old.read(_CHUNK_BYTES):
            out.write(chunk)
            check()


def _make_alike(descriptor: int, like: os.stat_result) -> None:
    os.fchmod(descriptor, stat.S_IMODE(like.st_mode))
    with suppress(PermissionError):  # only root can give a file away
        os.fchown(descriptor, like.st_uid, like.st_gid)
