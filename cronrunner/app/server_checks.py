"""Mistakes in where tenants and the ledger are, and in how the way there is encrypted."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from cronrunner.app.endpoints import is_sqlite, ledger_endpoint, reserved, server_url
from cronrunner.config import LedgerSettings, ServerSettings, Settings
from cronrunner.errors import Problem


def server_errors(settings: Settings) -> Iterator[Problem]:
    """Give every mistake in where tenants are."""
    for name in settings.servers:
        yield from _errors_of(settings, name)


def _errors_of(settings: Settings, name: str) -> Iterator[Problem]:
    server = settings.servers[name]
    yield from _encryption_errors(settings, server, "servers", name)
    try:
        server_url(server)
    except ValueError as error:
        yield at(settings, f"server {name}: {error}", "servers", name, "url")
        return
    how, of_files = server.discover, is_sqlite(server)
    if of_files and (how.databases or how.query):
        text = f"server {name}: a SQLite server is discovered by directory or list"
        yield at(settings, text, "servers", name, "discover")
    if not of_files and how.directory:
        text = f"server {name}: a directory is for SQLite; expected databases, query or list"
        yield at(settings, text, "servers", name, "discover")
    if server.max_connections is not None:
        least = reserved(settings, name) + 1
        if server.max_connections < least:
            text = (
                f"server {name}: expected max_connections of at least {least}: one for a"
                f" visit, {least - 1} for the runner itself; got {server.max_connections}"
            )
            yield at(settings, text, "servers", name, "max_connections")


def ledger_errors(settings: Settings) -> Iterator[Problem]:
    """Give every mistake in where the ledger is, but for those of a server that it is on."""
    yield from _encryption_errors(settings, settings.ledger, "ledger")
    try:
        ledger_endpoint(settings)
    except ValueError as error:
        yield at(settings, f"ledger: {error}", "ledger")


def errors_of_ledger_alone(settings: Settings) -> Iterator[Problem]:
    """Give what keeps the ledger from being opened, whatever else is wrong."""
    if settings.ledger.server is not None:
        yield from _errors_of(settings, settings.ledger.server)
    yield from ledger_errors(settings)


def _encryption_errors(
    settings: Settings, section: ServerSettings | LedgerSettings, *location: str
) -> Iterator[Problem]:
    of_file = is_sqlite(section)
    mistakes = _without_server(section) if of_file else _of_authorities(settings, section)
    for key, text in mistakes:
        yield at(settings, f"{'.'.join(location)}.{key}: {text}", *location, key)


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


# Of a server that has the ledger it is asked twice, and a bundle of authorities is large.
@cache
def _holds_certificates(path: Path) -> bool:
    import ssl  # noqa: PLC0415 - few need it

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except (ssl.SSLError, OSError):
        return False
    return True


def at(settings: Settings, text: str, *location: str | int) -> Problem:
    """Make a problem at a place of the file; a part without a line of its own has its parent's."""
    while location and settings.line_of(*location) is None:
        location = location[:-1]
    return Problem(text=text, file=str(settings.path), line=settings.line_of(*location))
