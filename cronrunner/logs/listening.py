"""Listens to the product's events, and has their lines written."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import Final

from cronrunner import events
from cronrunner.logs.lines import line_of
from cronrunner.logs.setup import job_logger, line_writer, soon

#: Events whose lines are of the level ``debug``.
FOR_DEBUGGING: Final = (events.ClaimRefused, events.ExecutionStarted, events.VisitFinished)


class LogListener:
    """Writes a line for each event. Make it after the logs were configured."""

    def __init__(self) -> None:
        self._is_debugging = job_logger().is_enabled_for(logging.DEBUG)
        self._write_line = line_writer()
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
        self._write_line(line_of(event), at)
