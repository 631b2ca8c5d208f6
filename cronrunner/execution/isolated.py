"""An attempt in a process of its own: what the run's side does, and what is said between the two.

The visit keeps its permit and has no session meanwhile; the process opens one. Inside of the
process the same ``Performer`` makes the attempt, with the same transactions, markers and texts.
Its deadlines are kept here: it says the server's number of each session before it is used, and
says when its time begins (``Armed``). What then happens at a deadline is what ``watchdog``
promises: the statement is cancelled at the server, a second later the process is killed and its
sessions are ended at the server. ``Disarmed`` is answered: an attempt whose deadline had expired
rolls back, whatever its job returned.

==========================================  =================================================
what happens                                outcome
==========================================  =================================================
the process gives a result                  that one
its deadline expired and it was killed      ``timed_out``; ``interrupted`` in a drain
it died: an exit, a signal, the memory      ``failed`` with ``ProcessDied``; its sessions are
                                            ended, the server rolls back
it says nothing for two minutes outside     killed, ``failed``: it may hang in an import, or in
of a deadline                               a job's ``__str__``
==========================================  =================================================

The ledger and the listeners hear of it from here alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from cronrunner.engines import Engines, FarSessions
from cronrunner.errors import DeadlineError, ProcessDied
from cronrunner.execution.attempt import Attempt, Work
from cronrunner.model import Killed, Outcome, Request, Result, Tenant, format_duration
from cronrunner.processes import Lane, Line, Processes
from cronrunner.watchdog import Deadline, Watchdog

#: How long a process may take to start, and to say nothing while no deadline holds.
_SILENCE: Final = timedelta(minutes=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """An attempt as it is sent to a process: names and plain values, no connection, no secret."""

    request: Request
    tenant: Tenant
    #: The path of the configuration, and what it said when the run began.
    config: str
    digest: str
    #: What the job's ``prepare`` returned, as JSON.
    prepared: str
    #: Job -> option -> value, as the command line says it.
    options: Mapping[str, Mapping[str, str]]
    #: Where the run keeps its rate limits.
    limits: str
    #: For ``summarize``: the slot's executions.
    results: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Opened:
    """A session was opened; the server has this number for it."""

    number: int


@dataclass(frozen=True, slots=True)
class Armed:
    """A deadline begins now."""

    timeout: timedelta


@dataclass(frozen=True, slots=True)
class Disarmed:
    """The deadline is to end. The answer tells whether it had expired."""


@dataclass(slots=True, eq=False, kw_only=True)
class _FarDeadline(Deadline):
    """In the process: a deadline that the run keeps."""

    line: Line

    def disarm(self) -> bool:
        """Ask the run to end the watch; tell whether the deadline had expired."""
        self.expired = bool(self.line.ask(Disarmed()))
        return self.expired


class FarWatchdog:
    """In the process: has the run watch over its deadlines."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def arm(
        self, server: str, timeout: timedelta, session: object, on_stuck: Callable[[], None]
    ) -> Deadline:
        """Let the run start the watch; it knows the sessions by their numbers."""
        del server, session, on_stuck
        self._line.say(Armed(timeout))
        return _FarDeadline(session=None, at=0.0, on_stuck=None, line=self._line)


class Isolated:
    """Makes attempts in processes."""

    def __init__(  # noqa: PLR0913 - what it takes
        self,
        *,
        processes: Processes,
        engines: Engines,
        watchdog: Watchdog,
        clock: Callable[[], datetime],
        config: str,
        digest: str,
        options: Mapping[str, Mapping[str, str]],
        limits: str,
    ) -> None:
        """``config`` is the absolute path of the configuration, ``digest`` that of its content.

        ``options`` are what the command line says of them, by job; ``limits`` is the path of the
        run's rate limits.
        """
        self._processes = processes
        self._engines = engines
        self._watchdog = watchdog
        self._clock = clock
        self._config = config
        self._digest = digest
        self._options = options
        self._limits = limits

    def __call__(
        self, attempt: Attempt, work: Work, on_stuck: Callable[[], None]
    ) -> Attempt | Result:
        """Make an attempt that has no session; return its result, or how it ended without one."""
        try:
            sent = self._sent(attempt, work)
            sessions = self._engines.far(attempt.tenant.server)
        except Exception as error:  # noqa: BLE001 - the ledger, the server: this attempt's outcome
            return replace(attempt, error=error)
        with self._processes.lane() as lane:
            talk = _Talk(attempt, lane, sessions, self._watchdog, on_stuck, self._clock)
            try:
                result = lane.run(sent, talk.take)
            except Exception as error:  # noqa: BLE001 - whatever became of the process
                return talk.broken_off(error, work)
            return talk.ended(result, work)

    def _sent(self, attempt: Attempt, work: Work) -> Sent:
        return Sent(
            request=attempt.request,
            tenant=attempt.tenant,
            config=self._config,
            digest=self._digest,
            prepared=json.dumps(work.prepared),
            options=self._options,
            limits=self._limits,
            results=() if work.results is None else tuple(map(dict, work.results())),
        )


class _Target:
    """What the watchdog cancels: the sessions at the server, and then the process."""

    severed = Killed.PROCESS

    def __init__(self, lane: Lane, sessions: FarSessions) -> None:
        self._lane = lane
        self._sessions = sessions

    def cancel(self) -> bool | None:
        """Cancel the statement."""
        return self._sessions.cancel()

    def sever(self) -> None:
        """Kill the process, then end at the server what it has left there."""
        self._lane.kill()
        self._sessions.sever()


class _Talk:
    """One attempt's talk with its process. There is a deadline at any time."""

    def __init__(  # noqa: PLR0913, PLR0917 - what an attempt takes
        self,
        attempt: Attempt,
        lane: Lane,
        sessions: FarSessions,
        watchdog: Watchdog,
        on_stuck: Callable[[], None],
        clock: Callable[[], datetime],
    ) -> None:
        self._attempt = attempt
        self._lane = lane
        self._sessions = sessions
        self._watchdog = watchdog
        self._on_stuck = on_stuck
        self._clock = clock
        self._has_begun = False
        #: The deadline in force is the attempt's own, and not a limit for saying nothing.
        self._own = False
        #: The attempt's deadline that had expired when it was disarmed.
        self._over: Deadline | None = None
        self._deadline = self._arm(_SILENCE)

    def _arm(self, timeout: timedelta) -> Deadline:
        target = _Target(self._lane, self._sessions)
        return self._watchdog.arm(self._attempt.tenant.server, timeout, target, self._on_stuck)

    def take(self, word: object) -> bool | None:
        """Take a word of the process; return the answer, if it waits for one."""
        match word:
            case Opened(number):
                self._sessions.add(number)
            case Armed(timeout):
                self._begin(timeout)
            case Disarmed():
                return self._end()
        return None

    def _begin(self, timeout: timedelta) -> None:
        if not self._has_begun:
            # Until here it was the process that started, and not the attempt.
            now = self._clock()
            self._attempt = replace(self._attempt, started_at=now, started=time.monotonic())
            self._has_begun = True
        if self._deadline.disarm():
            # A drain came first. Nobody else kills the process any more.
            self._over = self._over or self._deadline
            self._lane.kill()
            return
        self._own = True
        self._deadline = self._arm(timeout)

    def _end(self) -> bool:
        expired = self._deadline.disarm()
        if expired:
            self._over = self._over or self._deadline
        self._own = False
        self._deadline = self._arm(_SILENCE)
        return expired

    def ended(self, result: Result, work: Work) -> Attempt | Result:
        """Return the result, with what only the run knows of it."""
        self._deadline.disarm()
        if self._over is not None and result.outcome is Outcome.TIMED_OUT:
            # It may have been a drain.
            return self._timed_out(self._over, work)
        failed = result.outcome in {Outcome.FAILED, Outcome.TENANT_GONE}
        # Not sent back: its exceptions may be of a class that cannot be pickled.
        return replace(result, policy=work.job.retry if failed else None)

    def broken_off(self, error: Exception, work: Work) -> Attempt:
        """Say how the attempt ended without a result."""
        expired = self._deadline.disarm()
        if not expired:
            # A process that died by itself may have left a statement behind that goes on.
            self._sessions.sever()
        if expired and (self._own or self._deadline.drained):
            return self._timed_out(self._over or self._deadline, work)
        if self._over is not None:
            return self._timed_out(self._over, work)
        if expired:
            error = ProcessDied(f"killed: it said nothing for {format_duration(_SILENCE)}")
        return replace(self._attempt, error=error)

    def _timed_out(self, deadline: Deadline, work: Work) -> Attempt:
        over = DeadlineError(f"the job's timeout of {format_duration(work.job.timeout)} is over")
        return replace(self._attempt, error=over, deadline=deadline)
