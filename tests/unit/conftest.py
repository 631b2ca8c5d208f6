"""The fixtures of unit tests."""

import io
import logging
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from cronrunner.logs import Format, configure
from cronrunner.redaction import Redactor, secret_values
from tests.unit.logged import PASSWORD, Log, Make, describe


@pytest.fixture
def make_log() -> Iterator[Make]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook
    quiet = {name: logging.getLogger(name).level for name in ("alembic", "sqlalchemy")}

    def make(style: Format = "json", level: str = "debug", **given: Any) -> Log:
        stream = given.pop("stream", None) or io.StringIO()
        redactor = Redactor(secret_values({}, [PASSWORD]))
        configure(
            format=style, level=level, redactor=redactor, describe=describe, stream=stream, **given
        )
        return Log(stream)

    yield make
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, level in quiet.items():
        logging.getLogger(name).setLevel(level)
    sys.excepthook, sys.unraisablehook, threading.excepthook = hooks
    structlog.reset_defaults()


@pytest.fixture
def log(make_log: Make) -> Log:
    return make_log()
