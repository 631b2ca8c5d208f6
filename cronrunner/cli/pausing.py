"""``cronrunner pause`` and ``unpause``: what is left alone for a while, why, and until when."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from cronrunner.app import pausing
from cronrunner.app.pausing import End, Names
from cronrunner.cli import documents, rendering
from cronrunner.cli.opening import open_app
from cronrunner.cli.tables import print_table
from cronrunner.model import ExitCode, Pause


def pause_or_show(  # noqa: PLR0913 - the command's options
    *,
    job: str | None,
    tenant: str | None,
    server: str | None,
    reason: str | None,
    until: datetime | None,
    after: timedelta | None,
    config: str | None,
    as_json: bool,
) -> int:
    """Pause what is named; without any name, reason or end, show what is paused."""
    names, end = Names(job=job, tenant=tenant, server=server), End(until=until, after=after)
    with open_app(config, checked=False) as app:
        if (names, end, reason) == (Names(), End(), None):
            _show(app.pauses(), as_json=as_json)
        else:
            _say("paused", pausing.pause(app, names, reason=reason, end=end), as_json=as_json)
    return ExitCode.OK


def unpause_named(
    *, job: str | None, tenant: str | None, server: str | None, config: str | None, as_json: bool
) -> int:
    """End the pause of what is named."""
    with open_app(config, checked=False) as app:
        ended = pausing.unpause(app, Names(job=job, tenant=tenant, server=server))
        _say("not paused any more", ended, as_json=as_json)
    return ExitCode.OK


def _show(pauses: Sequence[Pause], *, as_json: bool) -> None:
    if as_json:
        documents.write([_document(each) for each in pauses])
    elif not pauses:
        rendering.console().print("nothing is paused")
    else:
        print_table(
            ("job", "tenant", "server", "since (UTC)", "until (UTC)", "why"),
            (
                (*(name or "(all)" for name in each.names), each.paused_at, each.until, each.reason)
                for each in pauses
            ),
        )


def _say(what: str, pause: Pause, *, as_json: bool) -> None:
    if as_json:
        documents.write(_document(pause))
    else:
        named = pausing.as_options(*pause.names)
        rendering.console().print(f"{what}: {named} ({pause.text})", markup=False)


def _document(pause: Pause) -> documents.Document:
    return {
        "job": pause.job or None,
        "tenant": pause.tenant or None,
        "server": pause.server or None,
        "reason": pause.reason,
        "paused_at": pause.paused_at,
        "until": pause.until,
    }
