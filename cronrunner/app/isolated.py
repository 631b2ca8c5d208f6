"""In the process of an isolated job: the house is put up once, and performs one attempt at a time.

It is made of the same configuration and environment as the run, reads its secrets itself, and
writes nothing to the ledger: what there is to say goes back as a result.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

from cronrunner.app import App, utc_now
from cronrunner.databases import describe
from cronrunner.engines import Engines
from cronrunner.errors import ConfigError, Problem
from cronrunner.events import Dispatcher
from cronrunner.execution import Performer, Work
from cronrunner.execution.isolated import FarWatchdog, Opened, Sent
from cronrunner.model import Outcome, Request, Result, Tenant, VisitRequest
from cronrunner.processes import Line


def perform(sent: Sent, line: Line) -> Result:
    """Make the attempt that was sent. Nothing that a job or the configuration does is raised."""
    try:
        house = _house(sent.config)
        house.refuse_another(sent)
        result = house.perform(sent, line)
    except Exception as error:  # noqa: BLE001 - a configuration that cannot be read any more
        return _refused(sent, utc_now(), error)
    # Counters may be of a class that derives from int, and the run has the policy.
    counters = {name: int(count) for name, count in result.counters.items()}
    return replace(result, counters=counters, policy=None)


class _House:
    """What this process keeps from one attempt to the next."""

    def __init__(self, config: str) -> None:
        self._app = App(Path(config), os.environ)
        # What is kept here for a next attempt would be one connection more than the run knows of.
        endpoints = {n: replace(each, reuse=False) for n, each in self._app.endpoints().items()}
        self._engines = Engines(endpoints, on_open=self._opened)
        self._line: Line | None = None

    def _opened(self, number: int) -> None:
        if self._line is not None:
            self._line.say(Opened(number))

    def refuse_another(self, sent: Sent) -> None:
        """Raise ``ConfigError`` if the configuration is not the one that the run has read."""
        if self._app.settings.digest != sent.digest:
            text = f"{sent.config} was changed while the run lasted; start another run"
            raise ConfigError([Problem(text=text)])

    def perform(self, sent: Sent, line: Line) -> Result:
        """Make one attempt."""
        app, self._line = self._app, line
        performer = Performer(
            resolve=_resolver(app, sent),
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
        )
        visit = VisitRequest(tenant=sent.tenant, requests=(sent.request,))
        (result,) = performer(visit)
        return result


@cache
def _house(config: str) -> _House:
    return _House(config)


def _resolver(app: App, sent: Sent) -> Callable[[Request, Tenant], Work]:
    def resolve(request: Request, tenant: Tenant) -> Work:
        if request.key.job.partition(":")[0] not in app.catalogue.jobs:
            # It was there in the run: its file can be loaded there and not here.
            raise ConfigError(list(app.found.problems))
        return app.catalogue.work(
            request, tenant, lambda *_: sent.prepared, lambda *_: sent.results
        )

    return resolve


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
