"""Discovery: sources to tenants, or to the reason why there are none.

A source that fails or finds nothing is a failure and never zero tenants. One that lost more
tenants than it may is used, and reported until somebody accepts the loss.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, text

from cronrunner.config import Discover, ServerSettings, Settings
from cronrunner.databases import DatabaseKind, describe, facts, kind_of
from cronrunner.errors import ConfigError, DiscoveryError, Problem
from cronrunner.model import EMPTY, Shrink, Source, Tenant

#: Gives a short-lived connection of the runner's own on a server.
Control = Callable[[str], AbstractContextManager[Connection]]

#: Servers that are asked at the same time; each is bounded by its connect timeout.
_AT_ONCE: Final = 16
#: The width of a tenant's name in the ledger.
NAME_LIMIT: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One way or another, a tenant: before names are checked and settings applied."""

    name: str
    database: str
    labels: Mapping[str, str]
    timezone: str | None


def discover(settings: Settings, servers: Iterable[str], control: Control) -> list[Source]:
    """Ask the named servers for their tenants, several at a time, in the order given.

    Raises ``ConfigError`` if one tenant name is found on two servers.
    """
    names = list(servers)
    with ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="discovery") as pool:
        sources = list(pool.map(lambda name: discover_server(settings, name, control), names))
    _refuse_twins(settings, sources)
    return sources


def discover_server(settings: Settings, name: str, control: Control) -> Source:
    """Ask one server for its tenants; whatever goes wrong is in the answer."""
    server = settings.servers[name]
    kind = kind_of(server.url.reveal().partition(":")[0])
    refused: list[str] = []
    tenants: dict[str, Tenant] = {}
    try:
        for each in _find(settings, name, server.discover, control):
            if reason := _refuse(each, kind, server.discover.prefix, tenants):
                refused.append(reason)
            else:
                tenants[each.name] = _tenant(settings, name, each)
    except DiscoveryError as error:
        return Source(server=name, failure=error.reason, error=str(error))
    except Exception as error:  # noqa: BLE001 - whatever a server or a driver may do
        return Source(server=name, failure=_reason(error), error=describe(error))
    if not tenants:
        why = "no tenants were found; is the glob right, and are the grants still there?"
        return Source(server=name, failure="empty", error=why, refused=tuple(refused))
    return Source(server=name, tenants=tuple(tenants.values()), refused=tuple(refused))


def _reason(error: Exception) -> str:
    what = facts(error)
    return "unreachable" if what.lost else "error"


def _find(settings: Settings, name: str, how: Discover, control: Control) -> Iterator[Found]:
    """Give one after the other: of a large fleet there is only one list."""
    if how.list is not None:
        for each in how.list:
            database = each.database or each.name
            yield Found(
                name=each.name, database=database, labels=each.labels, timezone=each.timezone
            )
    elif how.directory is not None:
        yield from _files(settings.folder / how.directory, how)
    else:
        with control(name) as connection:
            if how.query is not None:
                yield from _rows(connection, how.query)
            else:
                own = settings.ledger.database if settings.ledger.server == name else None
                yield from _databases(connection, how, own)


def _databases(connection: Connection, how: Discover, own: str | None) -> Iterator[Found]:
    """Give the databases of a server, but for the ledger's ``own``."""
    for name in kind_of(connection.dialect.name).list_databases(connection):
        if name != own and _wanted(name, how.databases or (), how.exclude or ()):
            yield Found(name=name, database=name, labels=EMPTY, timezone=None)


def _wanted(name: str, include: Iterable[str], exclude: Iterable[str]) -> bool:
    if any(fnmatchcase(name, glob) for glob in exclude):
        return False
    return any(fnmatchcase(name, glob) for glob in include)


def _files(folder: Path, how: Discover) -> Iterator[Found]:
    if not folder.is_dir():
        msg = f"expected a folder of tenants at {how.directory}, found none"
        raise DiscoveryError(msg, reason="unreachable")
    with os.scandir(folder) as entries:
        paths = sorted((entry.name, entry.path) for entry in entries)
    for name, path in paths:
        if _wanted(name, (how.pattern,), how.exclude or ()):
            # As the stem of a Path, of which there would be one for each.
            stem, _, ending = name.rpartition(".")
            found = stem if stem and ending else name
            yield Found(name=found, database=path, labels=EMPTY, timezone=None)


def _rows(connection: Connection, query: str) -> Iterator[Found]:
    """Read a registry query: columns name and database; labels and timezone if there are any."""
    result = connection.execute(text(query))
    columns = set(result.keys())
    if missing := {"name", "database"} - columns:
        msg = f"expected the query to give name and database, {' and '.join(missing)} is missing"
        raise DiscoveryError(msg, reason="query")
    for row in result.mappings():
        yield Found(
            name=_text("name", row["name"]),
            database=_text("database", row["database"]),
            labels=_labels(row.get("labels")),
            timezone=_zone(row.get("timezone")),
        )


def _text(column: str, value: Any) -> str:  # noqa: ANN401 - a driver's value
    if not isinstance(value, str):
        msg = f"expected the query to give text as {column}, got {type(value).__name__}"
        raise DiscoveryError(msg, reason="query")
    return value


def _labels(value: Any) -> Mapping[str, str]:  # noqa: ANN401 - a driver's value
    """Read labels: a JSON object as text, or ``key=value,key=value``."""
    if not value:
        return {}
    written = str(value)
    try:
        if written.lstrip().startswith("{"):
            return {str(key): str(each) for key, each in json.loads(written).items()}
        pairs = (part.split("=", 1) for part in written.split(","))
        return {key.strip(): each.strip() for key, each in pairs}
    except ValueError:
        # A row's value is no part of an error; neither is the parser's error, which quotes it.
        kind = type(value).__name__
        msg = f"expected labels as a JSON object or key=value,key=value, got another {kind}"
        raise DiscoveryError(msg, reason="query") from None


def _zone(value: Any) -> str | None:  # noqa: ANN401 - a driver's value
    if not value:
        return None
    try:
        return ZoneInfo(str(value)).key
    except (KeyError, ValueError, OSError):
        kind = type(value).__name__
        msg = f"expected a time zone such as Europe/Berlin as timezone, got another {kind}"
        raise DiscoveryError(msg, reason="query") from None


def _refuse(found: Found, kind: DatabaseKind, prefix: str, others: Container[str]) -> str | None:
    """Say why something cannot be a tenant beside the ``others``."""
    reason = kind.refuse(found.database) or _refuse_name(found.name, prefix)
    if reason is None and found.name in others:
        return f"{found.name!r} is found twice"
    return reason


def _refuse_name(name: str, prefix: str) -> str | None:
    if not name.strip() or name != name.strip() or not name.isprintable():
        return f"{name!r} is no name for a tenant: blank, or not printable"
    named = prefix + name
    return f"{named!r} is longer than {NAME_LIMIT}" if len(named) > NAME_LIMIT else None


def _tenant(settings: Settings, server: str, found: Found) -> Tenant:
    at_server: ServerSettings = settings.servers[server]
    name = at_server.discover.prefix + found.name
    own = settings.tenant(name)
    return Tenant(
        name=name,
        server=server,
        database=found.database,
        # Most have none, and there may be very many of them.
        labels={**at_server.labels, **found.labels, **own.labels} or EMPTY,
        timezone=own.timezone or found.timezone or at_server.timezone or "UTC",
    )


def _refuse_twins(settings: Settings, sources: Sequence[Source]) -> None:
    first: dict[str, str] = {}
    servers: dict[str, list[str]] = {}
    for source in sources:
        for tenant in source.tenants:
            before = first.setdefault(tenant.name, source.server)
            if before != source.server:
                servers.setdefault(tenant.name, [before]).append(source.server)
    problems = [
        Problem(
            text=f"tenant {name!r} is on the servers {' and '.join(on)}; give one of them a"
            " discover prefix, or exclude it there",
            file=str(settings.path),
            line=settings.line_of("servers", on[-1], "discover"),
        )
        for name, on in servers.items()
    ]
    if problems:
        raise ConfigError(problems)


def find_shrink(
    source: Source, accepted: frozenset[str], *, percent: float, tenants: int
) -> Shrink | None:
    """Say whether a source lost more than ``percent`` and at least ``tenants`` tenants."""
    missing = sorted(accepted - {tenant.name for tenant in source.tenants})
    if len(missing) < tenants or len(missing) * 100 <= percent * len(accepted):
        return None
    return Shrink(
        server=source.server,
        accepted=len(accepted),
        found=len(source.tenants),
        missing=tuple(missing),
    )
