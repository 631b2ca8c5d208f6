"""What users are told: notices inside the application, and messages on their way out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from random import Random
from typing import Final
from zoneinfo import ZoneInfo

from demo.rows.people import (
    DIGEST_READERS,
    DIGEST_SENT,
    DISABLED,
    KNOWN_USERS,
    MEMBER,
    MUTED,
)
from demo.scene import SECOND, Mood, Row, Scene, errand

#: As long as a long report, and longer than TEXT of MySQL holds.
LONG_BODY: Final = 300_000


def notifications(scene: Scene) -> Iterator[Row]:
    """Yield notices that are to be sent, and those that are not any more or not yet."""
    source = scene.random("notifications")
    for row in (*_new(scene), *_settled(scene), *_ordinary(scene, source)):
        yield {
            "user_id": MEMBER,
            "kind": source.choice(("mention", "comment", "digest")),
            "title": errand(source),
            "body": f"{errand(source)}, please.",
            "state": "new",
            **row,
        }


def _new(scene: Scene) -> Iterator[Row]:
    """Yield notices of the last minutes, too old ones, and those that nobody is to be sent."""
    limit, recent = scene.ago(hours=72), scene.ago(minutes=7)
    for moment in (limit - SECOND, limit, recent, scene.at, scene.at + SECOND):
        yield {"created_at": moment}
    yield {"created_at": recent, "read_at": scene.ago(minutes=1)}
    for user in (DISABLED, MUTED):
        yield {"created_at": recent, "user_id": user}
    for user in DIGEST_READERS:
        for minutes in (9, 8, 7):
            yield {"created_at": scene.ago(minutes=minutes), "user_id": user}


def _settled(scene: Scene) -> Iterator[Row]:
    """Yield notices that are about to be deleted, and one that is new whatever its age."""
    limit = scene.ago(days=180)
    for moment in (limit, limit - SECOND):
        yield {"created_at": moment, "state": "queued", "read_at": moment}
    yield {"created_at": limit - SECOND}


def _ordinary(scene: Scene, source: Random) -> Iterator[Row]:
    moments = [*scene.edges_of_yesterday()]
    moments += [scene.within(source, days=30) for _ in range(15 * scene.scale)]
    for moment in moments:
        state = source.choice(("new", "queued", "suppressed"))
        yield {
            "user_id": source.randint(1, KNOWN_USERS),
            "state": state,
            "created_at": moment,
            "read_at": moment + timedelta(minutes=5) if state == "queued" else None,
        }


def digest_marks(scene: Scene) -> Iterator[Row]:
    """Yield the mark of a digest that was sent on this day of its reader."""
    day = scene.at.astimezone(ZoneInfo("Asia/Singapore")).date()
    yield {"job": "notifications.dispatch", "item": f"digest:{DIGEST_SENT}:{day.isoformat()}",
           "state": "done", "attempts": 1, "slot": scene.ago(minutes=15)}  # fmt: skip


def outbox(scene: Scene) -> Iterator[Row]:
    """Yield messages that wait, are on their way, were sent, died or were called off."""
    source = scene.random("outbox")
    rows = (*_waiting(scene), *_on_their_way(scene), *_done(scene), *_sent(scene, source))
    for number, row in enumerate(rows, start=1):
        yield {
            "dedupe_key": f"demo:{number}",
            "channel": "email",
            "recipient": f"user{MEMBER}@{scene.tenant.replace('_', '-')}.example",
            "subject": errand(source),
            "body": f"{errand(source)}, please.",
            "source_job": "demo",
            "attempts": 0,
            "not_before": scene.ago(days=2),
            "created_at": scene.ago(days=31),
            **row,
        }


def _waiting(scene: Scene) -> Iterator[Row]:
    for moment in _pending(scene):
        yield {"status": "pending", "not_before": moment}
    due: Row = {"status": "pending", "not_before": scene.at}
    yield due | {"body": ("Räksmörgås 🎁 " * LONG_BODY)[:LONG_BODY]}
    yield due | {"channel": "slack", "recipient": "https://chat.example/hooks/1"}
    yield due | {"channel": "webhook", "recipient": "https://crm.example/events",
                 "payload": {"name": "Zoë 李 🎁"}}  # fmt: skip
    yield due | {"channel": "pigeon", "recipient": "the loft"}
    # Old, but not finished: no policy deletes it.
    yield {"status": "pending", "not_before": _far_ahead(scene), "created_at": scene.ago(days=91)}


def _on_their_way(scene: Scene) -> Iterator[Row]:
    """Yield messages that somebody had claimed who has died, and one that somebody has claimed."""
    claim: Row = {"status": "sending", "attempts": 1, "claim_token": "0" * 36}
    yield claim | {"claimed_until": scene.ago(minutes=3)}
    yield claim | {"claimed_until": _far_ahead(scene)}


def _done(scene: Scene) -> Iterator[Row]:
    limit = scene.ago(days=90)
    for moment in (limit, limit - SECOND):
        for status in ("sent", "dead", "cancelled"):
            yield {"status": status, "created_at": moment}
    for moment in _deaths(scene):
        yield {"status": "dead", "created_at": moment, "attempts": 5}


def _sent(scene: Scene, source: Random) -> Iterator[Row]:
    for moment in (*scene.edges_of_yesterday(), *scene.edges_of_last_month()):
        for channel in ("email", "slack"):
            yield {"status": "sent", "attempts": 1, "sent_at": moment, "channel": channel}
    for _ in range(15 * scene.scale):
        yield {"status": "sent", "attempts": 1, "sent_at": scene.within(source, days=30)}


def _pending(scene: Scene) -> Sequence[datetime]:
    """Return since when messages are due: at, or a second over, half an hour and a day."""
    half_an_hour, a_day = scene.ago(minutes=30), scene.ago(hours=24)
    in_future = _far_ahead(scene)
    match scene.mood:
        case Mood.WELL:
            return [half_an_hour, in_future]
        case Mood.WORRYING:
            return [half_an_hour - SECOND, a_day, in_future]
        case Mood.FAILING:
            return [half_an_hour, a_day - SECOND, in_future]


def _deaths(scene: Scene) -> Sequence[datetime]:
    """Return when messages were given up: where all is well, a day ago and earlier."""
    start, *others = scene.edges_of_yesterday()
    a_day = scene.ago(hours=24)
    return [start, a_day] if scene.mood is Mood.WELL else [start, a_day + SECOND, *others]


def _far_ahead(scene: Scene) -> datetime:
    """Return an instant that no clock has reached: deliveries go by it, and not by the slot."""
    return scene.at.replace(year=scene.at.year + 100, day=1)
