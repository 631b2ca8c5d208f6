"""What users are told: notices inside the application, and messages on their way out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from demo.rows.people import KNOWN_USERS, MEMBER
from demo.scene import SECOND, Mood, Row, Scene, errand

#: As long as a long report, and longer than TEXT of MySQL holds.
LONG_BODY: Final = 300_000


def notifications(scene: Scene) -> Iterator[Row]:
    """Yield notices at the edges of yesterday, new and read ones."""
    source = scene.random("notifications")
    moments = [*scene.edges_of_yesterday()]
    moments += [scene.within(source, days=30) for _ in range(15 * scene.scale)]
    for moment in moments:
        state = source.choice(("new", "queued", "suppressed"))
        yield {
            "user_id": source.randint(1, KNOWN_USERS),
            "kind": source.choice(("mention", "comment", "digest")),
            "title": errand(source),
            "body": f"{errand(source)}, please.",
            "state": state,
            "created_at": moment,
            "read_at": moment + timedelta(minutes=5) if state == "queued" else None,
        }


def outbox(scene: Scene) -> Iterator[Row]:
    """Yield messages that wait, that were sent at the edges of yesterday, and that died."""
    source = scene.random("outbox")
    waiting: list[Row] = [{"status": "pending", "not_before": moment} for moment in _pending(scene)]
    died: list[Row] = [{"status": "dead", "created_at": _death(scene), "attempts": 5}]
    sent = [*scene.edges_of_yesterday()]
    sent += [scene.within(source, days=30) for _ in range(15 * scene.scale)]
    long: Row = {"status": "cancelled", "body": ("Räksmörgås 🎁 " * LONG_BODY)[:LONG_BODY]}
    rows = [*waiting, *died, long, *({"status": "sent", "sent_at": moment} for moment in sent)]
    for number, row in enumerate(rows, start=1):
        yield {
            "dedupe_key": f"demo:{number}",
            "channel": "email",
            "recipient": f"user{MEMBER}@{scene.tenant.replace('_', '-')}.example",
            "subject": errand(source),
            "body": f"{errand(source)}, please.",
            "source_job": "demo",
            "attempts": 1 if row["status"] == "sent" else 0,
            "not_before": scene.ago(days=2),
            "created_at": scene.ago(days=31),
            **row,
        }


def _pending(scene: Scene) -> Sequence[datetime]:
    """Return since when messages are due: at, or a second over, half an hour and a day."""
    half_an_hour, a_day = scene.ago(minutes=30), scene.ago(hours=24)
    in_future = scene.ago(hours=-6)
    match scene.mood:
        case Mood.WELL:
            return [half_an_hour, in_future]
        case Mood.WORRYING:
            return [half_an_hour - SECOND, a_day, in_future]
        case Mood.FAILING:
            return [half_an_hour, a_day - SECOND, in_future]


def _death(scene: Scene) -> datetime:
    a_day = scene.ago(hours=24)
    return a_day if scene.mood is Mood.WELL else a_day + SECOND
