"""What can be said about the configuration before anything runs: all mistakes, all warnings."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from cronrunner import schedule
from cronrunner.app.endpoints import ledger_endpoint, reserved, server_url
from cronrunner.config import JobSettings, LedgerSettings, ServerSettings, Settings, load_rest
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
        *_server_errors(settings),
        *_encryption_errors(settings),
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


def _at(settings: Settings, text: str, *location: str | int) -> Problem:
    """Make a problem at a place of the file; a part without a line of its own has its parent's."""
    while location and settings.line_of(*location) is None:
        location = location[:-1]
    return Problem(text=text, file=str(settings.path), line=settings.line_of(*location))


def _server_errors(settings: Settings) -> Iterator[Problem]:
    for name, server in settings.servers.items():
        try:
            url = server_url(server)
        except ValueError as error:
            yield _at(settings, f"server {name}: {error}", "servers", name, "url")
            continue
        how = server.discover
        is_sqlite = url.get_backend_name() == "sqlite"
        if is_sqlite and (how.databases or how.query):
            text = f"server {name}: a SQLite server is discovered by directory or list"
            yield _at(settings, text, "servers", name, "discover")
        if not is_sqlite and how.directory:
            text = f"server {name}: a directory is for SQLite; expected databases, query or list"
            yield _at(settings, text, "servers", name, "discover")
        if server.max_connections is not None:
            least = reserved(settings, name) + 1
            if server.max_connections < least:
                text = (
                    f"server {name}: expected max_connections of at least {least}: one for a"
                    f" visit, {least - 1} for the runner itself; got {server.max_connections}"
                )
                yield _at(settings, text, "servers", name, "max_connections")
    try:
        ledger_endpoint(settings)
    except ValueError as error:
        yield _at(settings, f"ledger: {error}", "ledger")


def _encryption_errors(settings: Settings) -> Iterator[Problem]:
    places: list[tuple[tuple[str, ...], ServerSettings | LedgerSettings]] = [
        (("servers", name), server) for name, server in settings.servers.items()
    ]
    places.append((("ledger",), settings.ledger))
    for location, section in places:
        is_sqlite = section.url is not None and section.url.reveal().startswith("sqlite")
        mistakes = _without_server(section) if is_sqlite else _of_authorities(settings, section)
        for key, text in mistakes:
            yield _at(settings, f"{'.'.join(location)}.{key}: {text}", *location, key)


def _without_server(section: ServerSettings | LedgerSettings) -> Iterator[tuple[str, str]]:
    """Give the mistakes of an encrypted way to a file, each with its key."""
    why = "SQLite is a file, to which nothing is encrypted"
    if section.tls in {"required", "verify"}:
        yield "tls", f"expected auto or disabled, got {section.tls}: {why}"
    if section.tls_ca is not None:
        yield "tls_ca", f"expected none, got {section.tls_ca}: {why}"


def _of_authorities(
    settings: Settings, section: ServerSettings | LedgerSettings
) -> Iterator[tuple[str, str]]:
    """Give the mistakes in what certificates are checked against, each with its key."""
    given = section.tls_ca
    if given is None:
        return
    if section.tls != "verify":
        yield "tls_ca", f"expected tls: verify beside it, got {section.tls}: nothing is checked"
    if not (settings.folder / given).is_file():
        yield "tls_ca", f"expected a file of certificates, got {given}, no file"
    elif not _holds_certificates(settings.folder / given):
        yield "tls_ca", f"expected a file of certificates, got {given}, which holds none"


def _holds_certificates(path: Path) -> bool:
    import ssl  # noqa: PLC0415 - few need it

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except (ssl.SSLError, OSError):
        return False
    return True


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
        yield _at(settings, missing, *location)
    if override.schedule is not None and (text := _bad_schedule(override.schedule)):
        yield _at(settings, f"job {pattern}: schedule: {text}", *location, "schedule")
    if override.every is not None and (text := _bad_interval(override)):
        yield _at(settings, f"job {pattern}: every: {text}", *location, "every")
    for name, raw in override.options.items():
        place = (*location, "options", name)
        declaring = [job for job in jobs if name in job.options]
        if jobs and not declaring:
            known = [option for job in jobs for option in job.options]
            unknown = f"job {pattern} has no option {name!r}; {nearest(name, known)}"
            yield _at(settings, unknown, *place)
        for job in declaring:
            if wrong := _bad_value(job.options[name], raw):
                yield _at(settings, f"job {job.name}: option {name}: {wrong}", *place)


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
            yield _at(settings, text, *location)


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
