"""Rules over more than one key.

They read the file's data and not the models, so that they are reported together with the
mistakes in single values. What is not of the right type is left to the models.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from cronrunner.config.document import Location
from cronrunner.config.fault import did_you_mean, nearest
from cronrunner.config.references import as_written, hide, password_in
from cronrunner.config.sections import Discover, LedgerSettings, Section
from cronrunner.errors import DurationError
from cronrunner.model import format_duration, parse_duration

Data = Mapping[str, Any]

_SERVER_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+")
#: The width of a server's name in the ledger.
_SERVER_NAME_LIMIT: Final = 40
_SHORTEST_HISTORY: Final = timedelta(days=1)
WAYS: Final = ("databases", "directory", "query", "list")


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong, and where."""

    location: Location
    text: str


def mistakes(data: Data) -> Iterator[Mistake]:
    """Check ``data``, whose references are replaced, against every rule."""
    for rule in _RULES:
        yield from rule(data)


def _some_server(data: Data) -> Iterator[Mistake]:
    if data.get("servers") == {}:
        yield Mistake(("servers",), "expected at least one server, got none")


def _server_names(data: Data) -> Iterator[Mistake]:
    for name in _mapping(data, "servers"):
        if not _SERVER_NAME.fullmatch(name):
            text = f"expected a server name of letters, digits, _, - and dots, got {name!r}"
            yield Mistake(("servers", name), text)
        elif len(name) > _SERVER_NAME_LIMIT:
            limit = f"{_SERVER_NAME_LIMIT} characters"
            text = f"expected a server name of at most {limit}, got {len(name)}"
            yield Mistake(("servers", name), text)


def _one_way_to_discover(data: Data) -> Iterator[Mistake]:
    for name, discover in _each_discover(data):
        location = ("servers", name, "discover")
        meant = _meant(discover, Discover)
        ways = [way for way in WAYS if way in meant]
        if len(ways) != 1:
            got = " and ".join(ways) or "none of them"
            yield Mistake(location, f"expected exactly one of {', '.join(WAYS)}, got {got}")
            continue
        if "exclude" in discover and ways[0] in {"query", "list"}:
            text = f"expected exclude beside databases or directory, got it beside {ways[0]}"
            yield Mistake((*location, "exclude"), text)
        if "pattern" in discover and ways[0] != "directory":
            text = f"expected pattern beside directory, got it beside {ways[0]}"
            yield Mistake((*location, "pattern"), text)


def _listed_once(data: Data) -> Iterator[Mistake]:
    for server, discover in _each_discover(data):
        listed = discover.get("list")
        seen: set[str] = set()
        for index, entry in enumerate(listed if isinstance(listed, list) else ()):
            name = entry.get("name") if isinstance(entry, Mapping) else entry
            if isinstance(name, str) and name in seen:
                location = ("servers", server, "discover", "list", index)
                yield Mistake(location, f"expected each tenant once, got {_shown(name)} again")
            elif isinstance(name, str):
                seen.add(name)


def _credentials_once(data: Data) -> Iterator[Mistake]:
    for name, server in _each(data, "servers"):
        if server.get("password") is not None and password_in(server.get("url")):
            text = "expected the password here or in the url, got it in both"
            yield Mistake(("servers", name, "password"), text)


def _place_of_ledger(data: Data) -> Iterator[Mistake]:
    ledger = _mapping(data, "ledger")
    server = ledger.get("server")
    meant = _meant(ledger, LedgerSettings)
    both = [key for key in ("server", "database") if key in meant]
    if "url" in meant and both:
        text = f"expected url, or server and database, got url and {' and '.join(both)}"
        yield Mistake(("ledger", both[0]), text)
    elif len(both) == 1:
        text = f"expected server and database together, got {both[0]} alone"
        yield Mistake(("ledger", both[0]), text)
    for key in ("tls", "tls_ca"):
        if "server" in meant and ledger.get(key) is not None:
            text = f"expected {key} at the server on which the ledger lives, got it here"
            yield Mistake(("ledger", key), text)
    servers = _mapping(data, "servers")
    if isinstance(server, str) and servers and server not in servers:
        hint = did_you_mean(server, servers) or f"known are {', '.join(servers)}"
        text = f"expected the name of a server, got {_shown(server)}; {hint}"
        yield Mistake(("ledger", "server"), text)


def _lease_outlasts_heartbeat(data: Data) -> Iterator[Mistake]:
    runner = _mapping(data, "runner")
    lease, heartbeat = _duration(runner, "lease", "20s"), _duration(runner, "heartbeat", "5s")
    if lease and heartbeat and lease < 2 * heartbeat:
        key = "lease" if "lease" in runner else "heartbeat"
        text = (
            f"expected a lease of at least twice the heartbeat of {format_duration(heartbeat)}, "
            f"got {format_duration(lease)}"
        )
        yield Mistake(("runner", key), text)


def _history_of_a_day(data: Data) -> Iterator[Mistake]:
    keep = _duration(_mapping(data, "ledger"), "keep", "90d")
    if keep is not None and keep < _SHORTEST_HISTORY:
        text = f"expected to keep at least 1d of history, got {format_duration(keep)}"
        yield Mistake(("ledger", "keep"), text)


def _shown(text: str) -> str:
    """Quote a text of the file: references in it stay references."""
    return repr(hide(as_written(text)))


def _duration(section: Data, key: str, default: str) -> timedelta | None:
    try:
        return parse_duration(str(section.get(key) or default))
    except (DurationError, OverflowError):
        return None


def _meant(section: Data, model: type[Section]) -> set[str | None]:
    """Return the keys that are there, misspelt ones as what they were meant to be."""
    known = model.model_fields
    return {
        key if key in known else nearest(key, known)
        for key, value in section.items()
        if value is not None
    }


def _each_discover(data: Data) -> Iterator[tuple[str, Data]]:
    for name, server in _each(data, "servers"):
        if isinstance(server.get("discover"), Mapping):
            yield name, server["discover"]


def _each(data: Data, key: str) -> Iterator[tuple[str, Data]]:
    for name, value in _mapping(data, key).items():
        if isinstance(value, Mapping):
            yield name, value


def _mapping(data: Data, key: str) -> Data:
    value = data.get(key)
    return value if isinstance(value, Mapping) else {}


_RULES: Final[tuple[Callable[[Data], Iterator[Mistake]], ...]] = (
    _some_server,
    _server_names,
    _one_way_to_discover,
    _listed_once,
    _credentials_once,
    _place_of_ledger,
    _lease_outlasts_heartbeat,
    _history_of_a_day,
)
