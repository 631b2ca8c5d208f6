"""Opening the app for a command, and closing what it has opened."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from cronrunner.app import App
from cronrunner.config import find_config

_STDOUT: Final = 1
_STDERR: Final = 2

#: So many more objects than before have garbage looked for: those of a few visits.
_OBJECTS: Final = 2_000


@contextmanager
def open_app(config: str | None, *, checked: bool = True, with_jobs: bool = True) -> Iterator[App]:
    """Give the app of the configuration; ``checked`` refuses one with mistakes.

    What only reads the ledger does without the job files.
    """
    path = find_config(config, os.environ)
    with stdout_for_results():
        app = App(path, os.environ, with_jobs=with_jobs)
    try:
        if checked:
            app.refuse_errors()
        yield app
    finally:
        app.close()


def begin_tidying() -> None:
    """Have garbage collected from now on; what is there already stays to the end.

    ``main`` switches it off: see there. What an execution leaves behind waits for that of a few
    others: to look for it after every 700 objects, as is the default, takes 5 us of each.
    """
    gc.freeze()
    gc.set_threshold(_OBJECTS)
    gc.enable()


@contextmanager
def stdout_for_results() -> Iterator[None]:
    """Send to stderr what jobs, and processes that they start, print meanwhile.

    A job file may print as soon as it is imported.
    """
    sys.stdout.flush()
    kept = os.dup(_STDOUT)
    os.dup2(_STDERR, _STDOUT)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, _STDOUT)
        os.close(kept)
