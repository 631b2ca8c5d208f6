"""The spools that dead runs left on this machine, imported before anything else is done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from cronrunner.errors import LedgerError
from cronrunner.events import Event, SpoolImported, Warned
from cronrunner.ledger.spool import read, taken
from cronrunner.ledger.spools import left_behind
from cronrunner.ledger.store import Ledger


def import_spools(ledger: Ledger, folder: Path, emit: Callable[[Event], None]) -> None:
    """Import every spool whose run is over, and remove it; what goes wrong is a warning."""
    for path in left_behind(folder):
        try:
            with taken(path) as file:
                if file is not None:
                    _import(ledger, path, file, emit)
        except OSError as error:
            text = f"the spool {path} cannot be imported: {error.strerror or error}"
            emit(Warned(subject="ledger", text=text))
        except LedgerError as error:
            text = f"the spool {path} is left to the next command: {error}"
            emit(Warned(subject="ledger", text=text))
            return


def _import(ledger: Ledger, path: Path, file: BinaryIO, emit: Callable[[Event], None]) -> None:
    content = read(file)
    if content.run is not None and (content.results or content.end):
        outcomes = ledger.import_spool(content)
        emit(SpoolImported(run=content.run["run"], outcomes=outcomes))
    if content.is_intact:
        path.unlink()
        return
    kept = path.rename(path.with_name(f"{path.name}.broken"))
    text = f"a spool cannot be read to its end; what follows is not in the ledger: {kept}"
    emit(Warned(subject="ledger", text=text))
