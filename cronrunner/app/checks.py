"""What can be said about the configuration before anything runs: all mistakes, all warnings."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from cronrunner import schedule
from cronrunner.app.endpoints import ledger_endpoint
from cronrunner.app.server_checks import at, ledger_errors, server_errors
from cronrunner.config import JobSettings, Settings, load_rest
from cronrunner.errors import Problem
from cronrunner.ledger.engine import ledger_file
from cronrunner.model import Effects, Job, Option, format_duration
from cronrunner.planning import is_glob, nearest
from cronrunner.redaction import Redactor, secret_values
from cronrunner.registry.finding import Found, find_jobs

_CONTAINER_FILES: Final = ("/.dockerenv", "/run/.containerenv")
_CONTAINER_VARIABLES: Final = ("KUBERNETES_SERVICE_HOST", "ECS_CONTAINER_METADATA_URI_V4")


def find_errors(settings: Settings, found: Found) -> list[Problem]:
    """Return every mistake that keeps a run from starting. Broken job files do not."""
    problems = [
        *server_errors(settings),
        *ledger_errors(settings),
    ]
    for location, pattern, override in _overrides(settings):
        problems += _override_errors(settings, found, location, pattern, override)
    problems += _environment_errors(settings, found.jobs)
    return problems


def find_more_errors(path: Path, environ: Mapping[str, str]) -> list[Problem]:
    """Return what else is wrong beside the mistakes that keep the configuration from being read."""
    settings = load_rest(path, environ)
    if settings is None:
        return []
    found = find_jobs(settings.folder / settings.job_folder)
    redactor = Redactor(secret_values(environ, settings.secrets))
    problems = [*find_errors(settings, found), *found.problems]
    return [replace(each, text=redactor.text(each.text)) for each in problems]


def find_warnings(settings: Settings, found: Found) -> list[Problem]:
    """Return what stops nothing and should be known."""
    warnings = [*settings.warnings, *found.warnings]
    if found.problems:
        warnings += _unknown_jobs(settings, found)
    warnings += _repeated_effects(found.jobs)
    text = warn_ledger_in_container(settings)
    return [*warnings, Problem(text=text)] if text else warnings


def _bad_schedule(expression: str) -> str | None:
    try:
        schedule.check(expression)
    except ValueError as error:
        return str(error)
    return None


def _bad_interval(override: JobSettings) -> str | None:
    if override.schedule is not None:
        return "expected either a schedule or an interval, got both"
    if override.every is not None and override.every < schedule.SHORTEST:
        return (
            f"expected at least {format_duration(schedule.SHORTEST)},"
            f" got {format_duration(override.every)}"
        )
    return None


def _overrides(settings: Settings) -> Iterator[tuple[tuple[str, ...], str, JobSettings]]:
    """Give every override of a job with its place in the file."""
    for pattern, override in settings.jobs.items():
        yield ("jobs", pattern), pattern, override
    for tenant, own in settings.tenants.items():
        for pattern, override in own.jobs.items():
            yield ("tenants", tenant, "jobs", pattern), pattern, override


def _override_errors(
    settings: Settings, found: Found, location: tuple[str, ...], pattern: str, override: JobSettings
) -> Iterator[Problem]:
    jobs = _meant(found.jobs, pattern)
    if not jobs and not found.problems:
        missing = f"no job {pattern!r}; {nearest(pattern, found.jobs)}"
        yield at(settings, missing, *location)
    if override.schedule is not None and (text := _bad_schedule(override.schedule)):
        yield at(settings, f"job {pattern}: schedule: {text}", *location, "schedule")
    if override.every is not None and (text := _bad_interval(override)):
        yield at(settings, f"job {pattern}: every: {text}", *location, "every")
    for name, raw in override.options.items():
        place = (*location, "options", name)
        declaring = [job for job in jobs if name in job.options]
        if jobs and not declaring:
            known = [option for job in jobs for option in job.options]
            unknown = f"job {pattern} has no option {name!r}; {nearest(name, known)}"
            yield at(settings, unknown, *place)
        for job in declaring:
            if wrong := _bad_value(job.options[name], raw):
                yield at(settings, f"job {job.name}: option {name}: {wrong}", *place)


def _meant(jobs: Mapping[str, Job], pattern: str) -> list[Job]:
    if is_glob(pattern):
        return [job for name, job in jobs.items() if fnmatchcase(name, pattern)]
    return [jobs[pattern]] if pattern in jobs else []


def _bad_value(option: Option, raw: Any) -> str | None:  # noqa: ANN401 - whatever YAML holds
    try:
        option.read(raw)
    except ValueError as error:
        return str(error)
    return None


def _environment_errors(settings: Settings, jobs: Mapping[str, Job]) -> Iterator[Problem]:
    for job in jobs.values():
        for name, option in job.options.items():
            raw = settings.environ.get(option.environment or "")
            if raw and (text := _bad_value(option, raw)):
                yield Problem(text=f"{option.environment} (job {job.name}, {name}): {text}")


def _unknown_jobs(settings: Settings, found: Found) -> Iterator[Problem]:
    """While a job file is broken, a name that is not found may be one of its jobs."""
    for location, pattern, _ in _overrides(settings):
        if not _meant(found.jobs, pattern):
            text = f"no job {pattern!r}; it may be in one of the broken files"
            yield at(settings, text, *location)


def _repeated_effects(jobs: Mapping[str, Job]) -> Iterator[Problem]:
    """Name the jobs whose effects a rollback leaves behind, and the next attempt repeats."""
    for job in jobs.values():
        if job.effects is Effects.EXTERNAL:
            file, _, line = job.origin.rpartition(":")
            text = (
                f"job {job.name} has effects outside of the database and no outbox: what is rolled"
                " back or repeated happens there again; queue them as messages, or declare"
                ' effects="repeatable" if it sees to that itself'
            )
            yield Problem(text=text, file=file, line=int(line))


def warn_ledger_in_container(settings: Settings) -> str | None:
    """Say so if the ledger is a file that will be gone with this container."""
    try:
        path = ledger_file(ledger_endpoint(settings))
    except ValueError:  # it is among the errors
        return None
    if path is None or not _in_container(settings.environ):
        return None
    folder = next(each for each in [path.parent, *path.parents] if each.exists())
    if os.stat(folder).st_dev != os.stat("/").st_dev:  # noqa: PTH116 - two devices compared
        return None
    return (
        f"the ledger {path.name} is a file inside this container and will be gone with it;"
        " put it on a volume, or use a database server"
    )


def _in_container(environ: Mapping[str, str]) -> bool:
    files = any(Path(each).exists() for each in _CONTAINER_FILES)
    return files or any(environ.get(each) for each in _CONTAINER_VARIABLES)
