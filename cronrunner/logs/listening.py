"""Listens to the product's events, and has their lines written."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import Final

import structlog

from cronrunner import events
from cronrunner.logs.lines import line_of, write
from cronrunner.logs.setup import soon

#: Events whose lines are of the level ``debug``.
FOR_DEBUGGING: Final = (events.ClaimRefused, events.ExecutionStarted, events.VisitFinished)


class LogListener:
    """Writes a line for each event. Make it after the logs were configured."""

    def __init__(self) -> None:
        self._log = structlog.get_logger().bind()
        self._is_debugging = self._log.is_enabled_for(logging.DEBUG)
        self._soon = soon()

    def hears(self, kind: type[events.Event]) -> bool:
        """Leave out, unless somebody debugs, two of three events of an execution."""
        return self._is_debugging or kind not in FOR_DEBUGGING

    def on(self, event: events.Event) -> None:
        """Write the line of ``event``; the many lines of executions a moment later."""
        if isinstance(event, events.ExecutionFinished):
            self._soon(partial(self._write, event, time.time()))
        else:
            self._write(event)

    def _write(self, event: events.Event, at: float | None = None) -> None:
        write(self._log, line_of(event), at=at)
