"""Gift exchanges and who takes part."""

from __future__ import annotations

from collections.abc import Iterator

from demo.rows.people import ADMIN
from demo.scene import SECOND, Row, Scene, person

_PARTICIPANTS = 4


def exchanges(scene: Scene) -> Iterator[Row]:
    """Yield exchanges of each state, completed at the edges of yesterday, and old ones."""
    month = scene.ago(days=30)
    completed = [*scene.edges_of_yesterday(), scene.ago(days=31), month, month + SECOND]
    rows: list[Row] = [{"state": "completed", "completed_at": moment} for moment in completed]
    rows += [
        {"state": "matched", "exchange_at": scene.ago(days=-7)},
        {"state": "matched", "exchange_at": scene.at},
        {"state": "matched", "exchange_at": scene.ago(seconds=-1)},
        {"state": "draft", "exchange_at": scene.ago(days=3)},
    ]
    for number, row in enumerate(rows, start=1):
        yield {
            "name": f"Exchange {number} 🎁",
            "timezone": scene.zone,
            "exchange_at": scene.ago(days=40),
            "admin_id": ADMIN,
            **row,
        }


def exchange_participants(scene: Scene) -> Iterator[Row]:
    """Yield four people for each exchange, one of whom has withdrawn."""
    source = scene.random("exchange_participants")
    for exchange, _ in enumerate(exchanges(scene), start=1):
        for number in range(_PARTICIPANTS):
            yield {
                "exchange_id": exchange,
                "name": person(source),
                "email": f"guest{exchange}.{number}@guests.example",
                "reminder_enabled": number != 2,
                "withdrawn_at": scene.ago(days=1) if number == 3 else None,
            }
