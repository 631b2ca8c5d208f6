"""Settings to wired objects: the only module which knows all kinds.

An ``App`` belongs to one command. It opens the ledger when it is first needed and closes what
it has opened. What only visits tenants is imported when it is needed: to read history takes less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from cronrunner import planning
from cronrunner.app.endpoints import (
    default_concurrency,
    endpoint_of,
    ledger_endpoint,
    visits_at_once,
)
from cronrunner.app.server_checks import errors_of_ledger_alone
from cronrunner.config import Settings, load
from cronrunner.databases import Endpoint, ServerParts, describe
from cronrunner.errors import ConfigError, LedgerError, Problem
from cronrunner.ledger import Queries, open_engine
from cronrunner.ledger.engine import writing_engine
from cronrunner.ledger.schema import bring_up_to_date
from cronrunner.ledger.spools import left_behind
from cronrunner.model import LedgerSnapshot, Pause, Plan, Shrink, Source
from cronrunner.planning import Selection
from cronrunner.redaction import Redactor, secret_values

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from cronrunner.app.catalogue import Catalogue
    from cronrunner.engines import Engines
    from cronrunner.events import Dispatcher, Event, Listener
    from cronrunner.ledger.store import Ledger
    from cronrunner.metrics.server import MetricsServer
    from cronrunner.registry.finding import Found

#: How long fleet-scope work waits for the run's own writes to a SQLite ledger.
_FLEET_BUSY_SECONDS: Final = 30.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


class App:
    """The parts of cronrunner, put together for one command."""

    def __init__(
        self,
        path: Path,
        environ: Mapping[str, str],
        *,
        clock: Callable[[], datetime] = utc_now,
        log_to: TextIO | None = None,
        with_jobs: bool = True,
    ) -> None:
        """Read the configuration and find the jobs, unless nothing is asked of them.

        Raises ``ConfigError`` with all mistakes.
        """
        self.settings: Settings = load(path, environ)
        self.clock = clock
        self.redactor = Redactor(secret_values(environ, self.settings.secrets))
        self._log_to = log_to
        self._with_jobs = with_jobs
        if with_jobs:
            # The log first: the files of the jobs may write to it when they are imported.
            _ = self.events, self.found

    def open_log(self) -> Listener:
        """Send every line of this process to the log, and return what writes of events there."""
        from cronrunner import logs  # noqa: PLC0415 - see the module

        logs.configure(
            format=self.settings.log.format,
            level=self.settings.log.level,
            redactor=self.redactor,
            describe=describe,
            stream=self._log_to,
        )
        return logs.LogListener()

    def check(self) -> tuple[list[Problem], list[Problem]]:
        """Return all errors and all warnings; broken job files are errors."""
        from cronrunner.app.checks import find_errors, find_warnings  # noqa: PLC0415 - see the module

        errors = [*find_errors(self.settings, self.found), *self.found.problems]
        return self._safe(errors), self._safe(find_warnings(self.settings, self.found))

    def _safe(self, problems: Iterable[Problem]) -> list[Problem]:
        """Hide secrets: a problem quotes the value of an option, which may be one."""
        return [replace(each, text=self.redactor.text(each.text)) for each in problems]

    def refuse_errors(self) -> None:
        """Raise ``ConfigError`` with every mistake that keeps a command from running."""
        from cronrunner.app.checks import find_errors  # noqa: PLC0415 - see the module

        if errors := find_errors(self.settings, self.found):
            raise ConfigError(self._safe(errors))

    # Parts, made when they are first needed.

    @cached_property
    def events(self) -> Dispatcher:
        """Who is told of what happens outside of a run: the log. A run puts its own here."""
        from cronrunner.events import Dispatcher  # noqa: PLC0415 - see the module

        return Dispatcher([self.open_log()])

    def _tell(self, event: Event) -> None:
        # Whoever has nothing to tell needs no log.
        self.events.emit(event)

    @cached_property
    def found(self) -> Found:
        """What is in the folder of the jobs, and the mistakes in it."""
        from cronrunner.registry.finding import Found, find_jobs  # noqa: PLC0415 - see the module

        if not self._with_jobs:
            return Found(jobs={}, problems=())
        found = find_jobs(self.settings.folder / self.settings.job_folder)
        # A mistake in a job file may quote what the file had read from the environment.
        return replace(found, problems=tuple(self._safe(found.problems)))

    @cached_property
    def catalogue(self) -> Catalogue:
        """The jobs as they are configured."""
        from cronrunner.app.catalogue import Catalogue  # noqa: PLC0415 - see the module

        return Catalogue(self.settings, self.found.jobs, self.found.startup)

    @cached_property
    def engines(self) -> Engines:
        """The tenants' engines."""
        from cronrunner.engines import Engines  # noqa: PLC0415 - see the module

        return Engines(self.endpoints(), on_fallback=self.tell_fallback)

    def tell_fallback(self, server: str, why: str) -> None:
        """Warn that the sessions of a server are not used again after all."""
        from cronrunner.events import Warned  # noqa: PLC0415 - see the module

        text = self.redactor.text(f"server {server}: each visit connects, since {why}")
        self.events.emit(Warned(subject="connections", text=text))

    def endpoints(self) -> Mapping[str, Endpoint]:
        """Return the servers as they are configured, secrets revealed."""
        return {name: endpoint_of(self.settings, name) for name in self.settings.servers}

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger's write side, with what earlier runs had to spool.

        Raises ``ConfigError`` for mistakes in where it is, ``LedgerError`` when it cannot be used.
        """
        from cronrunner.app.spools import import_spools  # noqa: PLC0415 - see the module
        from cronrunner.ledger.quarantine import Quarantine  # noqa: PLC0415
        from cronrunner.ledger.store import Ledger  # noqa: PLC0415

        runner = self.settings.runner
        ledger = Ledger(
            self._ledger_engine,
            clock=self.clock,
            heartbeat=runner.heartbeat,
            lease=runner.lease,
            spool_folder=self._spool_folder,
            quarantine=Quarantine(
                after=runner.quarantine.after,
                digests={name: job.code_digest for name, job in self.catalogue.jobs.items()},
            ),
        )
        import_spools(ledger, self._spool_folder, self._tell)
        return ledger

    @property
    def _spool_folder(self) -> Path:
        return self.settings.folder / self.settings.ledger.spool

    @cached_property
    def queries(self) -> Queries:
        """The ledger's read side, which may be an empty one; spools are imported before.

        Raises ``ConfigError`` for mistakes in where it is, ``LedgerError`` when it cannot be used.
        """
        if left_behind(self._spool_folder):
            _ = self.ledger
        if "ledger" not in self.__dict__:
            bring_up_to_date(self._ledger_engine)
        return Queries(self._ledger_engine)

    @cached_property
    def _ledger_engine(self):  # type: ignore[no-untyped-def] # noqa: ANN202 - sqlalchemy.Engine
        if errors := list(errors_of_ledger_alone(self.settings)):
            raise ConfigError(self._safe(errors))
        try:
            return open_engine(ledger_endpoint(self.settings))
        except Exception as error:
            text = self.redactor.text(describe(error))
            raise LedgerError(f"the ledger cannot be used: {text}") from error

    @cached_property
    def fleet_engine(self) -> Engine:
        """The ledger's database for fleet-scope work, which has one connection of its own."""
        return writing_engine(self._ledger_engine, busy_seconds=_FLEET_BUSY_SECONDS)

    def rest(self) -> None:
        """Keep no connection to the ledger until somebody asks for one again."""
        if "fleet_engine" in self.__dict__:
            self.fleet_engine.dispose()

    def close(self) -> None:
        """Close what was opened."""
        self.rest()
        if "engines" in self.__dict__:
            self.engines.close()
        if "ledger" in self.__dict__:
            self.ledger.close()
        elif "_ledger_engine" in self.__dict__:
            self._ledger_engine.dispose()

    def snapshot(self) -> LedgerSnapshot:
        """Read from the ledger what metrics are made of."""
        from cronrunner.ledger.spool import waiting_bytes  # noqa: PLC0415 - see the module

        return replace(
            self.queries.snapshot(self.clock), spool_bytes=waiting_bytes(self._spool_folder)
        )

    # Discovery and planning, for every command that wants them.

    def discover(self, selection: Selection = Selection()) -> list[Source]:  # noqa: B008 - frozen
        """Ask the servers that the selection wants for their tenants."""
        from cronrunner.discovery import discover  # noqa: PLC0415 - see the module

        wanted = [
            name
            for name in self.settings.servers
            if not selection.servers or planning.matches_any(name, selection.servers)
        ]
        if not wanted:
            text = f"no server {', '.join(selection.servers)}; " + planning.nearest(
                selection.servers[0], self.settings.servers
            )
            raise ConfigError([Problem(text=text)])
        return [
            replace(
                source,
                error=None if source.error is None else self.redactor.text(source.error),
                refused=tuple(map(self.redactor.text, source.refused)),
            )
            for source in discover(self.settings, wanted, self.engines.control)
        ]

    def unknown_tenants(self, found: Iterable[str]) -> list[str]:
        """Return the tenants that the configuration names and discovery did not find."""
        known = set(found)
        names = self.settings.tenants
        return [name for name in names if not planning.is_glob(name) and name not in known]

    def shrink(self, source: Source) -> Shrink | None:
        """Compare a source with its last accepted discovery."""
        from cronrunner.discovery import find_shrink  # noqa: PLC0415 - see the module

        limits = self.settings.runner.shrink
        # Of a large fleet it is not kept beside the plan.
        accepted = self.queries.accepted_tenants_of(source.server)
        return find_shrink(source, accepted, percent=limits.percent, tenants=limits.tenants)

    def pauses(self) -> Sequence[Pause]:
        """Return the pauses that are in force now."""
        return self.queries.pauses(self.clock())

    @cached_property
    def setting_aside(self) -> planning.Veto:
        """Tells what is paused; for the whole command as it was when this was first asked."""
        return planning.pausing(self.pauses())

    def concurrency(self, plan: Plan, asked: int | None = None) -> int:
        """Return how many visits of a plan go on at once."""
        configured = asked or self.settings.runner.concurrency
        servers = {visit.tenant.server for visit in plan.visits}
        permits = sum(self.permits(server) for server in servers)
        return configured or default_concurrency(max(permits, len(plan.fleet_jobs), 1))

    def permits(self, server: str) -> int:
        """Return how many visits a server may have at once."""
        return visits_at_once(self.settings, server, self.parts_of(server))

    def parts_of(self, server: str) -> ServerParts | None:
        """Return what is known of a server that may not have answered."""
        try:
            return self.engines.server(server)
        except Exception:  # noqa: BLE001 - its visits report it
            return None

    def find_run(self, name: str, *, with_work: bool = False) -> Mapping[str, Any]:
        """Return a run by its id, the beginning of it, or ``last``. Raises ``ConfigError``.

        ``with_work`` lets ``last`` pass over runs that found nothing left to do.
        """
        found = self.queries.find_runs(name, with_work=with_work)
        if len(found) == 1:
            return found[0]
        what = f"no run {name!r}"
        if found:
            what = f"more than one run begins with {name!r}, as {found[0]['run']} does"
        text = f"{what}; `cronrunner history --runs` lists them, `last` is the newest"
        raise ConfigError([Problem(text=text)])

    def unencrypted(self, server: str) -> str | None:
        """Say that a server off this machine offers no TLS and is used all the same."""
        parts = self.parts_of(server)
        if parts is None or parts.tls is not False or parts.endpoint.tls != "auto":
            return None
        if parts.endpoint.url.host in _LOOPBACK:
            return None
        return f"server {server} offers no TLS; its sessions, passwords included, are not encrypted"

    @contextmanager
    def serving(self, host: str, port: int, events: Dispatcher) -> Iterator[MetricsServer]:
        """Answer /metrics and /health from the ledger as long as the context lasts."""
        from cronrunner import logs  # noqa: PLC0415 - see the module
        from cronrunner.metrics.server import MetricsServer  # noqa: PLC0415 - an HTTP server

        with MetricsServer(
            self.snapshot,
            host=host,
            port=port,
            series_limit=self.settings.metrics.series_limit,
            emit=events.emit,
            describe=lambda error: self.redactor.text(describe(error)),
            note=logs.request_logger(),
            clock=self.clock,
        ) as server:
            yield server
