"""Jobs as configured: what the code declares, with what tenants.yaml and the environment say."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from cronrunner.app.asking import Asked
from cronrunner.app.startup import Once
from cronrunner.config import JobSettings, Settings, TenantSettings
from cronrunner.config.settings import Overrides
from cronrunner.model import (
    EMPTY,
    FLEET,
    Isolation,
    Job,
    Option,
    Overlap,
    Request,
    Tenant,
)
from cronrunner.planning import filter_veto
from cronrunner.registry.python import Startup
from cronrunner.registry.script import Script
from cronrunner.registry.sql import SqlJob
from cronrunner.schedule import TENANT_ZONE, Schedule

if TYPE_CHECKING:
    from cronrunner.execution import Work

_PREPARE: Final = ":prepare"
_SUMMARIZE: Final = ":summarize"

#: (job, slot key) -> the prepared value as JSON, or ``None``.
ReadPrepared = Callable[[str, str], str | None]
#: (job, slot key) -> the slot's executions.
ReadResults = Callable[[str, str], Any]


def overridden(job: Job, settings: JobSettings) -> Job:
    """Return ``job`` with what ``settings`` say about everything but options."""
    changes: dict[str, Any] = {
        name: value
        for name in ("enabled", "schedule", "every", "timezone", "catch_up", "timeout")
        if (value := getattr(settings, name)) is not None
    }
    # Of an expression and an interval the one that the configuration says is meant.
    if settings.schedule is not None:
        changes["every"] = None
    elif settings.every is not None:
        changes["schedule"] = None
    if settings.overlap is not None:
        changes["overlap"] = Overlap(settings.overlap)
    if settings.retries is not None:
        changes["retry"] = replace(job.retry, attempts=settings.retries + 1)
    # A script is a process already, which nobody could end from another one.
    if settings.isolation is not None and not isinstance(job.call, Script):
        changes["isolation"] = Isolation(settings.isolation)
    return replace(job, **changes) if changes else job


class Catalogue:
    """The jobs of a process, by name, and what each is on a given tenant."""

    def __init__(
        self, settings: Settings, jobs: Mapping[str, Job], startup: Startup | None = None
    ) -> None:
        self._settings = settings
        self._startup = None if startup is None else Once(startup)
        #: Overridden for the fleet, not for single tenants.
        self.jobs: Mapping[str, Job] = {
            name: self._settled(overridden(job, settings.job(name))) for name, job in jobs.items()
        }
        #: What the command line says of options.
        self.asked: Asked = EMPTY
        self._options = self._all_values()
        #: Job -> what it is on every tenant of which the file says nothing.
        self._common: dict[str, Work] = {}
        # A run asks for one tenant's settings once per job, tenant by tenant.
        self._tenant = lru_cache(maxsize=64)(settings.tenant)

    def _settled(self, job: Job) -> Job:
        """Return ``job`` as the runner's settings have it, where nobody speaks for the job."""
        if isinstance(job.call, Script):
            own = replace(
                job.call, folder=self._settings.folder, withheld=frozenset(self._settings.secrets)
            )
            job = replace(job, call=own)
        if job.isolation is not None:
            return job
        return replace(job, isolation=Isolation(self._settings.runner.isolation))

    def ask(self, asked: Asked) -> None:
        """Take what the command line says of options; nothing else beats it."""
        if asked != self.asked:
            self.asked = asked
            self._options = self._all_values()
            self._common.clear()

    def _all_values(self) -> dict[str, Mapping[str, Any]]:
        return {
            name: self._values(job, self._settings.job(name)) for name, job in self.jobs.items()
        }

    def veto(self, job: Job, tenant: Tenant) -> str | None:
        """Say why a job does not run on a tenant."""
        own = self._tenant(tenant.name)
        if own.enabled is False:
            return "the tenant is disabled in tenants.yaml"
        if own.jobs:
            said = [each.enabled for each in Overrides(own.jobs).of(job.name)]
            if [each for each in said if each is not None][-1:] == [False]:
                return "the job is disabled for this tenant in tenants.yaml"
        return filter_veto(job, tenant)

    def work(
        self, request: Request, tenant: Tenant, prepared: ReadPrepared, results: ReadResults
    ) -> Work:
        """Return what a request stands for. Raises ``KeyError`` for an unknown job."""
        from cronrunner.execution import Work  # noqa: PLC0415 - for whom executes something

        name = request.key.job
        own = self._tenant(tenant.name) if tenant.name != FLEET else TenantSettings()
        is_common = not own.jobs and own.debug_delay is None
        if is_common and (common := self._common.get(name)) is not None:
            return common
        job = self._on(self.jobs[name.partition(":")[0]], tenant)
        options = self.options(job, tenant)
        if name.endswith(_PREPARE):
            prepare = self._started(_hook(job.prepare))
            return Work(job=job, call=prepare, options=options, keeps_value=True)
        if name.endswith(_SUMMARIZE):
            slot = request.key.slot_key
            summarize = self._started(_hook(job.summarize))
            return Work(
                job=job,
                call=summarize,
                options=options,
                prepared=_value(prepared, job, slot),
                results=lambda: results(job.name, slot),
            )
        work = Work(
            job=job,
            call=self._started(job.call),
            options=options,
            prepared=_value(prepared, job, request.key.slot_key),
            delay=own.debug_delay,
        )
        if is_common and job.prepare is None:
            self._common[name] = work
        return work

    def start(self) -> None:
        """Call the start-up hook now, if there is one. Raises ``StartupError``."""
        if self._startup is not None:
            self._startup.value()

    def _started(self, call: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Let the start-up hook come before what is written in Python."""
        if self._startup is None or isinstance(call, SqlJob | Script):
            return call
        return self._startup.before(call)

    def options(self, job: Job, tenant: Tenant) -> Mapping[str, Any]:
        """Return the option values of a job on a tenant.

        The first of these that says one counts: command line, tenant, job, environment, default.
        """
        if tenant.name == FLEET or not self._tenant(tenant.name).jobs:
            return self._options[job.name]
        return self._values(job, self._settings.job(job.name, tenant=tenant.name))

    def schedule(self, job: Job, tenant: Tenant) -> Schedule:
        """Return the slots of a job on a tenant."""
        own = self._on(job, tenant)
        zone = tenant.timezone if own.timezone == TENANT_ZONE else own.timezone
        return Schedule(expression=own.schedule, every=own.every, zone=zone)

    def catch_up(self, job: Job, tenant: Tenant) -> timedelta:
        """Return how late a slot of a job may be on a tenant."""
        return self._on(job, tenant).catch_up

    def _on(self, job: Job, tenant: Tenant) -> Job:
        if tenant.name == FLEET or not self._tenant(tenant.name).jobs:
            return job
        return overridden(job, self._settings.job(job.name, tenant=tenant.name))

    def _values(self, job: Job, settings: JobSettings) -> Mapping[str, Any]:
        environ = self._settings.environ
        said = {**settings.options, **self.asked.get(job.name, {})}
        return {
            name: option_value(option, name, said, environ) for name, option in job.options.items()
        }


def option_value(
    option: Option, name: str, configured: Mapping[str, Any], environ: Mapping[str, str]
) -> Any:  # noqa: ANN401 - one of the types an option may have
    """Return an option's value; one that cannot be read falls back to its default.

    Whatever cannot be read was reported by the checks, before anything ran.
    """
    try:
        if name in configured:
            return option.read(configured[name])
        if option.environment is not None and environ.get(option.environment):
            return option.read(environ[option.environment])
    except ValueError:
        return option.default
    # Read as any other value: a mapping is then nobody else's.
    return option.read(option.default)


def _hook(hook: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
    if hook is None:
        msg = "the job has no such hook any more"
        raise LookupError(msg)
    return hook


def _value(prepared: ReadPrepared, job: Job, slot_key: str) -> Any:  # noqa: ANN401 - JSON
    if job.prepare is None:
        return None
    text = prepared(job.name, slot_key)
    return None if text is None else json.loads(text)
