"""In a process of a run that has several: the house is put up, and visits are made in its threads.

It has engines, deadlines and a pulse of its own. What it cannot have alone is asked of the run: a
log that is whole, and the one connection of each server that cancels.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Collection
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TextIO, cast

from cronrunner.affinity import OneCpu
from cronrunner.app import isolated
from cronrunner.app.asking import Asked
from cronrunner.app.house import House
from cronrunner.context import Shared
from cronrunner.databases import describe
from cronrunner.engines import Engines
from cronrunner.events import DeadlineEnforced, Dispatcher
from cronrunner.execution import Isolated, Performer, Work
from cronrunner.execution.isolated import Sent
from cronrunner.executors import Serving
from cronrunner.limiting import Limits
from cronrunner.model import Killed, Request, Result, Tenant
from cronrunner.processes import Line, Processes
from cronrunner.watchdog import Pulse, Watchdog


@dataclass(frozen=True, slots=True, kw_only=True)
class Serve:
    """What a process is asked to do for a whole run. No connection, no secret."""

    #: The path of the configuration, and what it said when the run began.
    config: str
    digest: str
    #: Job -> option -> value, as the command line says it.
    options: Asked
    #: Where the run keeps its rate limits.
    limits: str
    threads: int
    servers: tuple[str, ...]
    #: The one that its threads stay on; ``None`` for all of them.
    cpu: int | None
    #: Those that a process of an isolated job may use.
    cpus: Collection[int]
    #: The beginning of each attempt is said at once, and not with its result.
    prompt: bool


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the ``prepare`` of a job returned for a slot, as JSON; ``None`` if it is not there."""

    job: str
    slot_key: str
    value: str | None


def perform(sent: Sent | Serve, line: Line) -> Result | None:
    """Do what the run asks of one of its processes."""
    if isinstance(sent, Sent):
        return isolated.perform(sent, line)
    try:
        _serve(sent, line)
    except Exception as error:  # noqa: BLE001 - whatever it is, the run hears of it
        # Its own class may need more than a text to be made again over there.
        raise RuntimeError(describe(error)) from None
    return None


def _serve(sent: Serve, line: Line) -> None:
    serving = Serving(line)
    house = House(sent.config, log_to=cast("TextIO", _Lines(serving)))
    house.refuse_another(sent.digest)
    house.app.catalogue.ask(sent.options)
    with ExitStack() as stack:
        if sent.cpu is not None:
            stack.enter_context(OneCpu(sent.cpu))
        visiting = _Visiting(house, sent, serving)
        stack.callback(visiting.close)
        runner = house.app.settings.runner
        stack.enter_context(Pulse(grace=runner.grace, file=sys.__stderr__))
        visiting.serve()


class _Visiting:
    """What performs visits here."""

    def __init__(self, house: House, sent: Serve, serving: Serving) -> None:
        app = house.app
        self._house = house
        self._sent = sent
        self._serving = serving
        self._prepared: dict[tuple[str, str], str | None] = {}
        self._events = Dispatcher([serving])
        self._watchdog = Watchdog(grace=app.settings.runner.grace, on_kill=self._tell_kill)
        app.events = self._events
        self._engines = Engines(
            app.endpoints(),
            on_open=serving.opened,
            on_fallback=app.tell_fallback,
            kill=serving.kill,
        )
        self._limits = Limits(sent.limits)
        self._processes = Processes(isolated.perform, cpus=sent.cpus)

    def _tell_kill(self, server: str, killed: Killed) -> None:
        self._events.emit(DeadlineEnforced(server=server, killed=killed))

    def serve(self) -> None:
        """Make visits until the run is over."""
        self._serving.run(
            self._performer(),
            threads=self._sent.threads,
            servers=self._sent.servers,
            prompt=self._sent.prompt,
            cancel=self._watchdog.cancel_all,
            learn=self._learn,
        )

    def close(self) -> None:
        """Close what was opened."""
        self._watchdog.close()
        self._processes.close()
        self._engines.close()
        self._limits.close()

    def _learn(self, prepared: Prepared) -> None:
        self._prepared[prepared.job, prepared.slot_key] = prepared.value

    def _performer(self) -> Performer:
        app = self._house.app
        return Performer(
            resolve=self._resolve,
            engines=self._engines,
            events=self._events,
            redactor=app.redactor,
            clock=app.clock,
            watchdog=self._watchdog,
            grace=app.settings.runner.grace,
            pause=self._serving.pause,
            on_stuck=self._serving.stuck,
            on_reached=self._serving.reached,
            isolated=Isolated(
                processes=self._processes,
                engines=self._engines,
                watchdog=self._watchdog,
                clock=app.clock,
                config=self._sent.config,
                digest=self._sent.digest,
                options=self._sent.options,
                limits=self._sent.limits,
            ),
            shared=Shared(limits=self._limits),
        )

    def _resolve(self, request: Request, tenant: Tenant) -> Work:
        return self._house.work(
            request, tenant, lambda job, slot_key: self._prepared[job, slot_key], lambda *_: ()
        )


class _Lines(io.TextIOBase):
    """A stream whose lines the run writes."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def write(self, text: str, /) -> int:
        """Write whole lines."""
        self._serving.write(text.removesuffix("\n"))
        return len(text)

    def isatty(self) -> bool:
        """Tell whether people read what the run writes."""
        with suppress(AttributeError, ValueError):  # it may be closed, or not be there
            return sys.stderr.isatty()
        return False
