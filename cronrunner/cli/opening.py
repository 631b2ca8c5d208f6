"""Opening the app for a command, and closing what it has opened."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from cronrunner.app import App
from cronrunner.config import find_config


@contextmanager
def open_app(config: str | None, *, checked: bool = True) -> Iterator[App]:
    """Give the app of the configuration; ``checked`` refuses one with mistakes."""
    app = App(find_config(config, os.environ), os.environ)
    try:
        if checked:
            app.refuse_errors()
        yield app
    finally:
        app.close()
