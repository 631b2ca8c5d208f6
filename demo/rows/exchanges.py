"""Gift exchanges and who takes part."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from demo.rows.people import ADMIN, DISABLED
from demo.scene import SECOND, Row, Scene, person

_PARTICIPANTS: Final = 4
#: For how long a reminder is still sent that is late, and counted as missed.
_GRACE: Final = timedelta(hours=1)
_MISSED: Final = _GRACE + timedelta(minutes=15)
_MARKED: Final = "Marked"


def exchanges(scene: Scene) -> Iterator[Row]:
    """Yield exchanges of each state, on both sides of each date on which something happens."""
    rows = (*_completed(scene), *_over(scene), *_reminded(scene))
    for number, row in enumerate(rows, start=1):
        yield {
            "name": f"Exchange {number} 🎁",
            "timezone": scene.zone,
            "exchange_at": scene.ago(days=40),
            "admin_id": ADMIN,
            **row,
        }


def _completed(scene: Scene) -> Iterator[Row]:
    purged, warned = scene.ago(days=30), scene.ago(days=23)
    moments = [*scene.edges_of_yesterday(), scene.ago(days=31), purged, purged + SECOND, warned,
               warned + SECOND]  # fmt: skip
    for moment in moments:
        yield {"state": "completed", "completed_at": moment}
    yield {"state": "completed", "completed_at": warned, "admin_id": DISABLED}
    yield {"state": "completed", "completed_at": warned, "admin_id": None}
    yield {"state": "completed", "completed_at": warned, "name": _MARKED}


def _over(scene: Scene) -> Iterator[Row]:
    yield {"state": "matched", "exchange_at": scene.at}
    yield {"state": "matched", "exchange_at": scene.at + SECOND}
    yield {"state": "draft", "exchange_at": scene.ago(days=3)}
    yield {"state": "open", "exchange_at": scene.ago(days=3)}


def _reminded(scene: Scene) -> Iterator[Row]:
    """Yield exchanges that are reminded of at, before and after the slot."""
    for late in (timedelta(0), -SECOND, _GRACE, _GRACE + SECOND, _MISSED, _MISSED + SECOND):
        yield _to_come(scene, late, [1])
    yield _to_come(scene, timedelta(0), None) | {"exchange_at": _days_after(scene, scene.at, 7)}
    yield _to_come(scene, timedelta(0), [])
    yield _to_come(scene, timedelta(0), [1, 1, 30])
    yield _to_come(scene, timedelta(0), [1]) | {"name": _MARKED}


def _to_come(scene: Scene, late: timedelta, days: list[int] | None) -> Row:
    """Return an exchange whose reminder of the day before is so late at the slot."""
    at = _days_after(scene, scene.at - late, 1)
    return {"state": "matched", "exchange_at": at, "reminder_days": days}


def _days_after(scene: Scene, moment: datetime, days: int) -> datetime:
    """Return when the clocks of the tenant show the same time some days later."""
    local = moment.astimezone(ZoneInfo(scene.zone))
    return (local + timedelta(days=days)).astimezone(UTC)


def first_reminded(scene: Scene) -> int:
    """Return the id of an exchange of which participants are reminded at the slot."""
    return sum(1 for _ in (*_completed(scene), *_over(scene))) + 1


def exchange_participants(scene: Scene) -> Iterator[Row]:
    """Yield four people for each exchange, one of whom has withdrawn."""
    source = scene.random("exchange_participants")
    for exchange, _ in enumerate(exchanges(scene), start=1):
        first = (exchange - 1) * _PARTICIPANTS + 1
        for number in range(_PARTICIPANTS):
            yield {
                "exchange_id": exchange,
                "name": person(source),
                "email": f"guest{exchange}.{number}@guests.example",
                "reminder_enabled": number != 2,
                "withdrawn_at": scene.ago(days=1) if number == 3 else None,
                "giftee_id": first + (number + 1) % _PARTICIPANTS,
            }


def warning_marks(scene: Scene) -> Iterator[Row]:
    """Yield the mark of a warning that was given."""
    for number, row in _marked(scene):
        if row["state"] == "completed":
            yield _mark(scene, "purge", f"warn:{number}:{_written(row['completed_at'])}")


def reminder_marks(scene: Scene) -> Iterator[Row]:
    """Yield the mark of a reminder that was sent."""
    for number, row in _marked(scene):
        if row["state"] == "matched":
            yield _mark(scene, "remind", f"{number}:1:{_written(scene.at)}")


def _marked(scene: Scene) -> Iterator[tuple[int, Row]]:
    for number, row in enumerate(exchanges(scene), start=1):
        if row["name"] == _MARKED:
            yield number, row


def _mark(scene: Scene, job: str, item: str) -> Row:
    return {"job": f"exchanges.{job}", "item": item, "state": "done", "attempts": 1,
            "slot": scene.ago(days=1)}  # fmt: skip


def _written(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
