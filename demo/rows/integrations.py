"""What a tenant is connected to: services of others, and mailboxes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from demo.scene import SECOND, Mood, Row, Scene

#: The version that each has taken over.
_VERSION: Final = "2"


def integrations(scene: Scene) -> Iterator[Row]:
    """Yield services and mailboxes in every situation.

    The state that is kept of them says how healthy the tenant looks before a job looks again:
    all are well, some are not, or none is.
    """
    base = {"enabled": True, "failures": 0, "created_at": scene.ago(days=90)}
    bad = {Mood.WELL: range(0), Mood.WORRYING: range(1), Mood.FAILING: range(99)}[scene.mood]
    for rows, worse in ((_services(scene), "degraded"), (_mailboxes(scene), "failing")):
        for number, row in enumerate(rows):
            yield base | {"state": worse if number in bad else "ok"} | row
    for kind in ("webhook", "mailbox"):
        off = {"kind": kind, "provider": "old", "enabled": False}
        yield base | off | {"state": "degraded", "failures": 9}


def _services(scene: Scene) -> Iterator[Row]:
    two_days = scene.ago(hours=-48)
    oauth = {"kind": "oauth", "last_ok_at": scene.ago(days=1), "config_version": _VERSION,
             "refresh_url": "https://id.example/token"}  # fmt: skip
    yield oauth | {"provider": "calendar", "token_expires_at": two_days}
    yield oauth | {"provider": "storage", "token_expires_at": two_days + SECOND}
    yield oauth | {"provider": "storage", "token_expires_at": None}
    # A token is not renewed where nobody answers, and only OAuth has some.
    yield oauth | {"provider": "tracker", "token_expires_at": two_days, "failures": 2}
    hook = {"kind": "webhook", "config_version": _VERSION, "token_expires_at": two_days}
    yield hook | {"provider": "storage", "failures": 4}
    yield hook | {"provider": "fax"}


def _mailboxes(scene: Scene) -> Iterator[Row]:
    hour, day = scene.ago(minutes=60), scene.ago(hours=24)
    situations: tuple[Row, ...] = (
        {"last_ok_at": hour},
        {"last_ok_at": hour, "failures": 2},
        {"last_ok_at": scene.ago(minutes=-5)},
        {"last_ok_at": hour - SECOND},
        {"last_ok_at": scene.ago(minutes=5), "failures": 3},
        {"created_at": hour},
        {"created_at": hour - SECOND},
        # Told of before: well again, told long enough ago, not yet, and something else by now.
        {"last_ok_at": scene.at, "alerted_state": "stale", "alerted_at": day},
        {"last_ok_at": day, "alerted_state": "stale", "alerted_at": day},
        {"last_ok_at": day, "alerted_state": "stale", "alerted_at": day + SECOND},
        {"last_ok_at": day, "alerted_state": "failing", "alerted_at": hour},
    )
    for number, row in enumerate(situations):
        address = f"inbox{number}@mail.example"
        yield {"kind": "mailbox", "provider": "imap", "address": address, **row}
