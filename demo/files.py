"""The files that jobs of the demo read and write: backups, log files, and what others publish."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

from demo.outside import CATALOGUE, rates
from demo.rows.backups import backup_files
from demo.scene import Scene

_LINE: Final = b"Somebody has logged in.\n"


class Places(NamedTuple):
    """Where the files are, below one folder."""

    folder: Path

    @property
    def backups(self) -> Path:
        """Hold a folder for each tenant."""
        return self.folder / "backups"

    @property
    def logs(self) -> Path:
        """Hold the log files of an application."""
        return self.folder / "logs"

    @property
    def outbox(self) -> Path:
        """Hold what was sent."""
        return self.folder / "outbox"

    @property
    def catalogue(self) -> Path:
        """Say how the providers of integrations are."""
        return self.folder / "providers.json"

    @property
    def rates(self) -> Path:
        """Hold the exchange rates of the day."""
        return self.folder / "rates.json"


def make_files(places: Places, scenes: Iterable[Scene], at: datetime) -> None:
    """Make all files anew, dated at the slot; remove what was sent earlier."""
    for folder in (places.backups, places.logs, places.outbox):
        shutil.rmtree(folder, ignore_errors=True)
    for scene in scenes:
        for name, content in backup_files(scene):
            _write(places.backups / name, content, at)
    for name, content in log_files(at):
        _write(places.logs / name, content, at)
    _write(places.catalogue, _json(CATALOGUE), at)
    _write(places.rates, _json(rates(at.date())), at)


def log_files(at: datetime) -> Iterator[tuple[str, bytes]]:
    """Yield files for each thing that can become of one, and some that are left alone."""

    def named(days: int) -> str:
        return f"{at - timedelta(days=days):%Y%m%d}"

    yield "app.log", _LINE * 3
    yield "mail.log", _LINE
    yield "idle.log", b""
    # Put aside before, for this day.
    yield "busy.log", _LINE
    yield f"busy.log-{named(0)}", _LINE * 2
    for days in (6, 7, 90, 91):
        yield f"app.log-{named(days)}", f"{days} days ago\n".encode()
    # Compressed by somebody who was stopped before the original was removed.
    yield f"mail.log-{named(8)}", _LINE
    yield f"mail.log-{named(8)}.gz", _LINE
    yield "notes.txt", b"Not a log file.\n"


def _json(document: object) -> bytes:
    return json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"


def _write(path: Path, content: bytes, at: datetime) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (at.timestamp(), at.timestamp()))
