"""In the process of an isolated job: the house is put up once, and makes one attempt at a time."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache

from cronrunner.app import utc_now
from cronrunner.app.house import House
from cronrunner.context import Shared
from cronrunner.databases import describe
from cronrunner.engines import Engines
from cronrunner.events import Dispatcher
from cronrunner.execution import Performer
from cronrunner.execution.isolated import FarWatchdog, Opened, Sent
from cronrunner.limiting import Limits
from cronrunner.model import Outcome, Result, VisitRequest
from cronrunner.processes import Line


def perform(sent: Sent, line: Line) -> Result:
    """Make the attempt that was sent. Nothing that a job or the configuration does is raised."""
    try:
        apart = _apart(sent.config)
        apart.house.refuse_another(sent.digest)
        apart.house.app.catalogue.ask(sent.options)
        result = apart.perform(sent, line)
    except Exception as error:  # noqa: BLE001 - a configuration that cannot be read any more
        return _refused(sent, utc_now(), error)
    # Counters may be of a class that derives from int, and the run has the policy.
    counters = {name: int(count) for name, count in result.counters.items()}
    return replace(result, counters=counters, policy=None)


class _Apart:
    """What this process keeps from one attempt to the next."""

    def __init__(self, config: str) -> None:
        self.house = House(config)
        # What is kept here for a next attempt would be one connection more than the run knows of.
        servers = self.house.app.endpoints()
        endpoints = {name: replace(each, reuse=False) for name, each in servers.items()}
        self._engines = Engines(endpoints, on_open=self._opened)
        self._line: Line | None = None
        self._shared = Shared(fleet_engine=lambda: self.house.app.fleet_engine)

    def _opened(self, number: int) -> None:
        if self._line is not None:
            self._line.say(Opened(number))

    def perform(self, sent: Sent, line: Line) -> Result:
        """Make one attempt."""
        app, self._line = self.house.app, line
        if self._shared.limits.path != sent.limits:
            self._shared.limits.close()
            self._shared = replace(self._shared, limits=Limits(sent.limits))
        performer = Performer(
            resolve=lambda request, tenant: self.house.work(
                request, tenant, lambda *_: sent.prepared, lambda *_: sent.results
            ),
            engines=self._engines,
            # The run tells its listeners; they would be told twice.
            events=Dispatcher(),
            redactor=app.redactor,
            clock=app.clock,
            watchdog=FarWatchdog(line),
            grace=app.settings.runner.grace,
            pause=_pause,
            on_stuck=lambda _: None,
            on_reached=lambda _: None,
            shared=self._shared,
        )
        visit = VisitRequest(tenant=sent.tenant, requests=(sent.request,))
        (result,) = performer(visit)
        app.rest()
        return result


@cache
def _apart(config: str) -> _Apart:
    return _Apart(config)


def _pause(delay: timedelta) -> None:
    """Wait for a debug delay; a drain ends the process with it."""
    time.sleep(delay.total_seconds())


def _refused(sent: Sent, now: datetime, error: Exception) -> Result:
    text = describe(error)
    return Result(
        request=sent.request,
        server=sent.tenant.server,
        outcome=Outcome.FAILED,
        started_at=now,
        duration_seconds=0.0,
        error=text,
        cause=text,
    )
