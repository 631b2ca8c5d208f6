"""What can be told from a backup's file: whether it is there, whole, and of a plausible size."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

#: Read at a time, so that a backup of any size needs the same memory.
CHUNK_BYTES: Final = 1 << 20
#: A backup of less than half of the one before it has lost something.
_SHRUNK: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What is known of a backup."""

    #: Where its file is, below the folder of all backups.
    location: str
    size_bytes: int
    #: In hexadecimal digits; ``None`` if nobody has computed it.
    sha256: str | None
    #: The size of the backup before it, if there is one.
    previous_bytes: int | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found, and why."""

    status: str
    detail: str | None = None


def verify(root: Path, expected: Expected, *, check: Callable[[], None]) -> Verdict:
    """Compare a backup's file with what is known of it.

    ``check`` is called after each chunk that is read, and may raise to end this.
    """
    try:
        with _within(root, expected.location).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != expected.size_bytes:
                return Verdict("size_mismatch", f"{size} bytes instead of {expected.size_bytes}")
            damage = _damage(file, expected, check)
    except (OSError, ValueError) as error:
        # Without the path: those who are told may not know this machine.
        return Verdict("unreadable", getattr(error, "strerror", None) or str(error))
    return Verdict("corrupt", damage) if damage else _plausible(expected)


def _within(root: Path, location: str) -> Path:
    """Return the regular file that is meant. Raises ``OSError`` and ``ValueError``.

    Links are followed to their end first: what leaves the folder is not looked at.
    """
    # Path.resolve raises another error for links that go in a circle.
    folder = Path(os.path.realpath(root))
    file = Path(os.path.realpath(folder / location, strict=True))
    if not file.is_relative_to(folder):
        msg = "it is outside of the folder of backups"
        raise ValueError(msg)
    if not file.is_file():
        msg = "it is no file"
        raise ValueError(msg)
    return file


def _damage(file: BinaryIO, expected: Expected, check: Callable[[], None]) -> str | None:
    """Read a file to its end; say how it is damaged."""
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK_BYTES):
        digest.update(chunk)
        check()
    if expected.sha256 is not None and digest.hexdigest() != expected.sha256.lower():
        return f"its SHA-256 is {digest.hexdigest()}"
    return _damage_of_archive(file, check) if expected.location.endswith(".gz") else None


def _damage_of_archive(file: BinaryIO, check: Callable[[], None]) -> str | None:
    """Unpack a file to its end, keeping nothing; say why that is not possible."""
    if not file.tell():
        # To the library this is an archive of nothing.
        return "it is empty"
    file.seek(0)
    try:
        with gzip.open(file) as unpacked:
            while unpacked.read(CHUNK_BYTES):
                check()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        return f"it cannot be unpacked: {error}"
    return None


def _plausible(expected: Expected) -> Verdict:
    if expected.sha256 is None:
        return Verdict("unverified", "it has no SHA-256 to be compared with")
    previous = expected.previous_bytes
    if previous is not None and expected.size_bytes < _SHRUNK * previous:
        return Verdict("shrunk", f"{expected.size_bytes} bytes; the one before has {previous}")
    return Verdict("ok")
