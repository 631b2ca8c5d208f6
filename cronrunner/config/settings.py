"""What the configuration comes to, and how its overrides are merged."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from cronrunner.config.document import Location
from cronrunner.config.sections import (
    JobSettings,
    LedgerSettings,
    LogSettings,
    MetricsSettings,
    RunnerSettings,
    Section,
    ServerSettings,
    TenantSettings,
)
from cronrunner.errors import Problem

S = TypeVar("S", bound=Section)

_MAGIC: Final = re.compile(r"[*?\[]")
#: What the file says of most tenants: frozen, so that they can share it.
_NO_TENANT_SETTINGS: Final = TenantSettings()


class Overrides(Generic[S]):
    """Sections by name or glob. An exact name beats globs; of globs the later one wins."""

    def __init__(self, sections: Mapping[str, S]) -> None:
        self._exact = sections
        self._globs = [
            (re.compile(translate(key)), section)
            for key, section in sections.items()
            if _MAGIC.search(key)
        ]

    def of(self, name: str) -> Iterator[S]:
        """Give what applies to ``name``, the strongest last."""
        exact = self._exact.get(name)
        for glob, section in self._globs:
            if section is not exact and glob.match(name):
                yield section
        if exact is not None:
            yield exact


def merged(base: S, over: S) -> S:
    """Return ``base`` with everything that ``over`` says; mappings are merged key by key."""
    said = {name: getattr(over, name) for name in over.model_fields_set}
    for name, value in said.items():
        if isinstance(value, dict):
            said[name] = _merged_mappings(getattr(base, name), value)
    return base.model_copy(update=said)


def _merged_mappings(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    both = dict(base)
    for key, value in over.items():
        known = both.get(key)
        both[key] = merged(known, value) if isinstance(known, Section) else value
    return both


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The whole configuration of one process: frozen, checked, and safe to print."""

    #: As the user gave it.
    path: Path
    #: Absolute; relative paths in the file are relative to it.
    folder: Path
    servers: Mapping[str, ServerSettings]
    ledger: LedgerSettings
    runner: RunnerSettings
    #: By tenant name or glob; ``tenant`` merges them.
    tenants: Mapping[str, TenantSettings]
    #: By job name or glob; ``job`` merges them.
    jobs: Mapping[str, JobSettings]
    metrics: MetricsSettings
    log: LogSettings
    job_folder: Path
    warnings: tuple[Problem, ...]
    #: Of the file as written, without secrets and without the environment: two processes
    #: with one digest read the same file.
    digest: str
    #: Every value that must never be shown.
    secrets: frozenset[str] = field(repr=False)
    #: For options of jobs that have a variable of their own.
    environ: Mapping[str, str] = field(repr=False)
    lines: Mapping[Location, int] = field(repr=False)

    def tenant(self, name: str) -> TenantSettings:
        """Return what the file says of a tenant, its globs included."""
        settings = _NO_TENANT_SETTINGS
        for each in self._tenants.of(name):
            settings = merged(settings, each)
        return settings

    def job(self, name: str, *, tenant: str | None = None) -> JobSettings:
        """Return what the file says of a job, everywhere or on one tenant.

        What a tenant says of a job beats what the jobs section says, and what a tenant's own
        entry says beats what a glob of tenants says.
        """
        settings = JobSettings()
        for each in self._jobs.of(name):
            settings = merged(settings, each)
        for layer in self._tenants.of(tenant) if tenant is not None else ():
            for each in Overrides(layer.jobs).of(name) if layer.jobs else ():
                settings = merged(settings, each)
        return settings

    def line_of(self, *location: str | int) -> int | None:
        """Return the line of a key or value such as ``"jobs", "a.b", "schedule"``."""
        return self.lines.get(location)

    @cached_property
    def _tenants(self) -> Overrides[TenantSettings]:
        return Overrides(self.tenants)

    @cached_property
    def _jobs(self) -> Overrides[JobSettings]:
        return Overrides(self.jobs)
