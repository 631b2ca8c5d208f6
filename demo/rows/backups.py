"""Backups: a component for each result of their verification, and the files themselves."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from hashlib import sha256
from typing import Final, NamedTuple

from demo.scene import SECOND, Mood, Row, Scene

#: A component of which a backup is expected, and nothing is known.
EXPECTED: Final = "vault"
#: A component whose file differs from what is known of it in one byte.
FLIPPED: Final = "files"

_AGE_HOURS: Final = 48
_UNFINISHED: Final = ("running", "failed")


class _Backup(NamedTuple):
    """The newest backup of a component."""

    component: str
    #: More than 48 hours old.
    is_stale: bool = False
    is_there: bool = True
    #: How many bytes are missing at the end.
    cut: int = 0
    #: How many of them were missing when it was entered.
    known_cut: int = 0
    has_digest: bool = True
    #: Its size, in parts of the size of the one before it.
    shrunk_to: float = 1.0


_NEWEST: Final = (
    _Backup("database"),
    _Backup(FLIPPED),
    _Backup("uploads", is_stale=True),
    _Backup("mail", is_there=False),
    _Backup("search", cut=1),
    _Backup("index", cut=9, known_cut=9),
    _Backup("settings", has_digest=False),
    _Backup("metrics", shrunk_to=0.49),
    _Backup("calendar", shrunk_to=0.5),
)


def backups(scene: Scene) -> Iterator[Row]:
    """Yield earlier backups, verified in time or too long ago, then the newest of each component.

    The earlier ones say how healthy the tenant looks before anything is verified.
    """
    for number, backup in enumerate(_NEWEST):
        content = _content(scene, backup.component)
        known = content[: len(content) - backup.known_cut]
        yield _row(backup.component, "earlier", round(len(known) / backup.shrunk_to)) | {
            "finished_at": scene.ago(days=9),
            **_verified(scene, number),
        }
        yield _row(backup.component, "newest", len(known)) | {
            "location": location(scene, backup.component),
            "sha256": sha256(known).hexdigest() if backup.has_digest else None,
            "finished_at": scene.ago(hours=_AGE_HOURS) - backup.is_stale * SECOND,
        }
    for status in _UNFINISHED:
        yield _row("database", status, 0) | {"status": status}
    # Of the second after the slot, which nobody knows about yet.
    yield _row("uploads", "coming", 1) | {"finished_at": scene.at + SECOND}


def _row(component: str, name: str, size: int) -> Row:
    return {
        "component": component,
        "location": f"{component}-{name}.gz",
        "size_bytes": size,
        "status": "finished",
    }


def _verified(scene: Scene, number: int) -> Row:
    """Tell what became of an earlier backup; the first two decide how the tenant looks."""
    long_ago = scene.ago(days=8)
    match scene.mood, number:
        case Mood.WORRYING, 0:
            return {"verified_at": long_ago - SECOND, "verify_status": "ok"}
        case Mood.WORRYING, 1:
            return {}
        case Mood.FAILING, 1:
            return {"verified_at": scene.ago(days=1), "verify_status": "corrupt"}
        case _:
            return {"verified_at": long_ago, "verify_status": "ok"}


def location(scene: Scene, component: str) -> str:
    """Return where the newest backup of a component is, below the folder of backups."""
    return f"{scene.tenant}/{component}.gz"


def backup_files(scene: Scene) -> Iterator[tuple[str, bytes]]:
    """Yield where each file is, and what is in it."""
    for backup in _NEWEST:
        if backup.is_there:
            content = bytearray(_content(scene, backup.component))
            if backup.component == FLIPPED:
                content[len(content) // 2] ^= 1
            yield location(scene, backup.component), bytes(content[: len(content) - backup.cut])


def _content(scene: Scene, component: str) -> bytes:
    """Return an archive, alike whichever library packs it: nothing in it is compressed."""
    source = scene.random(f"backups.{component}")
    return gzip.compress(source.randbytes(4000), compresslevel=0, mtime=0)
