"""What is too old is removed from the ledger: a little after each run, or all of it by hand."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from cronrunner.errors import LedgerError
from cronrunner.events import LedgerPruned, Warned

if TYPE_CHECKING:
    from cronrunner.app import App

#: What it may add to a run. After a signal there is time for it, too.
_A_WHILE_SECONDS: Final = 2.0


def prune(app: App, keep: timedelta | None = None) -> tuple[datetime, int]:
    """Remove all that is older than ``keep``; return the time, and how many rows it was.

    Raises ``LedgerError``.
    """
    before = app.clock() - (keep or app.settings.ledger.keep)
    return before, app.ledger.prune(before)


def prune_a_while(app: App) -> None:
    """Remove what there is time for; the run is recorded, and what remains is for the next one."""
    before, until = app.clock() - app.settings.ledger.keep, time.monotonic() + _A_WHILE_SECONDS
    try:
        rows = app.ledger.prune(before, is_over=lambda: time.monotonic() >= until)
    except LedgerError as error:
        app.events.emit(Warned(subject="ledger", text=f"old history is not removed: {error}"))
        return
    if rows:
        app.events.emit(LedgerPruned(rows=rows, before=before))
