"""Pausing and its end: what the command line names is checked, and handed to the ledger.

Names are names and no globs, compared as they are; of a job its last part will do. All mistakes
are found before anything is changed.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from cronrunner import planning
from cronrunner.app.choosing import choose_jobs
from cronrunner.discovery import NAME_LIMIT
from cronrunner.errors import ConfigError, Problem
from cronrunner.model import Pause, format_instant

if TYPE_CHECKING:
    from cronrunner.app import App

#: In characters: it is written into every execution that is skipped for it.
_REASON_LIMIT: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What is to be paused, or not any more, as it was typed; ``None`` stands for all."""

    job: str | None = None
    tenant: str | None = None
    server: str | None = None

    def mistakes(self) -> list[str]:
        """Return what is wrong with them whatever there is: none, or an empty one."""
        named = {"--job": self.job, "--tenant": self.tenant, "--server": self.server}
        if all(name is None for name in named.values()):
            return [f"expected at least one of {', '.join(named)}, got none; name what is meant"]
        # An empty one would mean all: a variable of a shell that was not set must not.
        return [
            f"expected a name behind {option}, got an empty text; leave {option} out for all"
            for option, name in named.items()
            if name is not None and not name.strip()
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """When a pause ends, as it was typed: at a time, after a while, or when somebody says so."""

    until: datetime | None = None
    after: timedelta | None = None

    def at(self, now: datetime, mistakes: list[str]) -> datetime | None:
        """Return the end of a pause that begins ``now``; whole seconds after a while."""
        if self.until is not None and self.after is not None:
            mistakes.append("expected one of --until and --for, got both; choose one")
        if self.until is not None and self.until <= now:
            given, current = format_instant(self.until), format_instant(now.replace(microsecond=0))
            mistakes.append(f"expected an --until to come, got {given}, and it is {current} now")
        if self.after is None:
            return self.until
        try:
            end = now + self.after
            return end.replace(microsecond=0) + timedelta(seconds=end.microsecond > 0)
        except OverflowError:
            mistakes.append("expected a --for that ends before the year 10000; leave it out")
            return None


def pause(app: App, names: Names, *, reason: str | None, end: End) -> Pause:
    """Pause what is named, in the place of a pause of the same names.

    Raises ``ConfigError`` with all mistakes, and ``LedgerError``.
    """
    now = app.clock()
    mistakes = names.mistakes()
    wanted = Pause(
        job=_find_job(app, names.job, mistakes) if names.job else "",
        tenant=_find_tenant(app, names, mistakes) if names.tenant else "",
        server=_find_server(app, names.server, mistakes) if names.server else "",
        reason=_line(app, reason, mistakes),
        paused_at=now,
        until=end.at(now, mistakes),
    )
    _refuse(app, mistakes)
    app.ledger.pause(wanted)
    return wanted


def unpause(app: App, names: Names) -> Pause:
    """End the pause of what is named, and return it.

    Raises ``ConfigError`` if there is none, or for a mistake, and ``LedgerError``.
    """
    _refuse(app, names.mistakes())
    in_force = app.pauses()
    found = _find_pause(in_force, names)
    if found is not None and app.ledger.unpause(found.names):
        return found
    known = "; ".join(as_options(*each.names) for each in in_force if each != found)
    asked = as_options(names.job, names.tenant, names.server)
    text = f"no pause of {asked}; {f'paused are: {known}' if known else 'nothing is paused'}"
    raise ConfigError([Problem(text=app.redactor.text(text))])


def as_options(job: str | None, tenant: str | None, server: str | None) -> str:
    """Write what is paused as it is typed: ``--job compliance.overdue --tenant acme``."""
    named = {"--job": job, "--tenant": tenant, "--server": server}
    return " ".join(f"{option} {shlex.quote(name)}" for option, name in named.items() if name)


def _refuse(app: App, mistakes: Iterable[str]) -> None:
    if problems := [Problem(text=app.redactor.text(each)) for each in mistakes]:
        raise ConfigError(problems)


def _find_pause(in_force: Sequence[Pause], names: Names) -> Pause | None:
    """Return the one pause that is named: its job may be gone, so no other job is asked."""
    others = (names.tenant or "", names.server or "")
    of_others = [each for each in in_force if each.names[1:] == others]
    wanted = names.job or ""
    exact = [each for each in of_others if each.job == wanted]
    by_last_part = [each for each in of_others if each.job.rpartition(".")[2] == wanted]
    found = exact or by_last_part
    return found[0] if len(found) == 1 else None


def _find_job(app: App, name: str, mistakes: list[str]) -> str:
    jobs = app.catalogue.jobs
    if planning.is_glob(name):
        mistakes.append(f"expected the name of a job, got the glob {name!r}; pause one by one")
        return name
    try:
        return choose_jobs(jobs, app.found, (name,))[0].name
    except ConfigError as error:
        mistakes += map(str, error.problems)
        return name


def _find_server(app: App, name: str, mistakes: list[str]) -> str:
    servers = app.settings.servers
    if name not in servers:
        mistakes.append(f"no server {name!r}; {planning.nearest(name, servers)}")
    return name


def _find_tenant(app: App, names: Names, mistakes: list[str]) -> str:
    """Look the tenant up in the last accepted discovery, if there was one."""
    name = names.tenant or ""
    accepted = app.queries.accepted_tenants()
    known = [tenant for of_server in accepted.values() for tenant in of_server]
    on = [server for server, of_server in accepted.items() if name in of_server]
    if known and not on:
        mistakes.append(f"no tenant {name!r}; {planning.nearest(name, sorted(known))}")
    elif on and names.server in app.settings.servers and names.server not in on:
        text = f"tenant {name!r} is on server {', '.join(on)}, not on {names.server}"
        mistakes.append(f"{text}; leave --server out")
    elif not known and not _may_be_a_tenant(name):
        mistakes.append(f"expected the name of a tenant, got {name!a}; pause one by one")
    return name


def _may_be_a_tenant(name: str) -> bool:
    return name.isprintable() and len(name) <= NAME_LIMIT and not planning.is_glob(name)


def _line(app: App, reason: str | None, mistakes: list[str]) -> str:
    """Return the reason on one line, without secrets."""
    line = " ".join(app.redactor.text(reason or "").split())
    if not line:
        mistakes.append("expected a --reason, got none; say why, for whoever meets the pause")
    if len(line) > _REASON_LIMIT:
        limit = f"at most {_REASON_LIMIT} characters"
        mistakes.append(f"expected a --reason of {limit}, got {len(line)}; say it in fewer words")
    if not line.isprintable():
        mistakes.append(f"expected a --reason of characters that can be shown, got {line!a}")
    return line
