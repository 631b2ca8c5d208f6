"""Servers as configured to endpoints to connect to, and how many connections each has."""

from __future__ import annotations

import os
from typing import Final

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from cronrunner.config import LedgerSettings, ServerSettings, Settings
from cronrunner.databases import KINDS, Endpoint, ServerParts

#: Visits on a server that says nothing of limits (SQLite), and at most on any by default.
_DEFAULT_VISITS: Final = 16
#: By default a run takes no more than this part of a server's connections.
_SHARE_OF_SERVER: Final = 0.5
_LAST_PORT: Final = 65_535
#: Kept for the runner itself on each server.
CONTROL_CONNECTIONS: Final = 1
#: Threads that one core can feed: work that waits for servers gains by more, Python does not.
_VISITS_PER_CORE: Final = 8


def parse_url(text: str) -> URL:
    """Read a database URL. Raises ``ValueError`` saying what was expected, without the URL."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        # A ValueError comes of a port that is no number.
        msg = "expected a URL such as mysql+pymysql://user@host:3306 or sqlite://"
        raise ValueError(msg) from error
    if url.port is not None and not 0 < url.port <= _LAST_PORT:
        msg = f"expected a port of 1 to {_LAST_PORT}, got {url.port}"
        raise ValueError(msg)
    scheme, _, driver = url.drivername.partition("+")
    if scheme not in KINDS:
        msg = f"expected a URL of {', '.join(KINDS)}, got {url.drivername!r}"
        raise ValueError(msg)
    if scheme != "sqlite" and driver not in {"", "pymysql"}:
        msg = f"expected the driver pymysql, got {driver!r}"
        raise ValueError(msg)
    if any(name.startswith("ssl") for name in url.query):
        msg = "expected TLS to be set by the keys tls and tls_ca, got ssl parameters in the URL"
        raise ValueError(msg)
    return url if scheme == "sqlite" else url.set(drivername=f"{scheme}+pymysql")


def is_sqlite(section: ServerSettings | LedgerSettings) -> bool:
    """Tell whether a section's own URL, right or wrong, is one of SQLite."""
    return section.url is not None and section.url.reveal().startswith("sqlite")


def server_url(server: ServerSettings) -> URL:
    """Return the URL of a server, user and password filled in."""
    url = parse_url(server.url.reveal())
    if server.username is not None:
        url = url.set(username=server.username)
    if server.password is not None:
        url = url.set(password=server.password.reveal())
    return url


def endpoint_of(settings: Settings, name: str) -> Endpoint:
    """Return the endpoint of a configured server."""
    server = settings.servers[name]
    return Endpoint(
        name=name,
        url=server_url(server),
        tls=server.tls,
        tls_ca=None if server.tls_ca is None else settings.folder / server.tls_ca,
        connect_timeout_seconds=server.connect_timeout.total_seconds(),
        reuse=server.connections == "reset",
        folder=settings.folder,
    )


def ledger_endpoint(settings: Settings) -> Endpoint:
    """Return the endpoint of the ledger: a URL of its own, or a database on a server."""
    ledger = settings.ledger
    if ledger.server is not None:
        at_server = endpoint_of(settings, ledger.server)
        return Endpoint(
            name="ledger",
            url=at_server.url.set(database=ledger.database),
            tls=at_server.tls,
            tls_ca=at_server.tls_ca,
            connect_timeout_seconds=at_server.connect_timeout_seconds,
            folder=settings.folder,
        )
    url = parse_url("" if ledger.url is None else ledger.url.reveal())
    if not url.database or url.database == ":memory:":
        msg = "expected the file or database after the last slash of the URL, got none"
        raise ValueError(msg)
    return Endpoint(
        name="ledger",
        url=url,
        tls=ledger.tls,
        tls_ca=None if ledger.tls_ca is None else settings.folder / ledger.tls_ca,
        folder=settings.folder,
    )


def reserved(settings: Settings, server: str) -> int:
    """Return how many connections of a server are not for visits."""
    if is_sqlite(settings.servers[server]):
        return 0
    with_ledger = settings.ledger.server == server
    return CONTROL_CONNECTIONS + (settings.ledger.reserved_connections if with_ledger else 0)


def visits_at_once(settings: Settings, server: str, parts: ServerParts | None) -> int:
    """Return how many visits a server may have: its limit less what is reserved.

    Without a configured limit: half of what the server allows, at most 16 together.
    """
    limit = settings.servers[server].max_connections
    if limit is None:
        allowed = parts.limit if parts is not None else None
        share = _DEFAULT_VISITS if allowed is None else int(allowed * _SHARE_OF_SERVER)
        limit = min(share, _DEFAULT_VISITS)
    return max(limit - reserved(settings, server), 1)


def default_concurrency(permits: int) -> int:
    """Choose how many visits go on at once, given the permits of all servers together."""
    return max(1, min(permits, _VISITS_PER_CORE * (os.cpu_count() or 1)))
