"""What is kept of earlier runs of jobs, and of what they found."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from demo.rows.assets import alert_marks
from demo.rows.exchanges import reminder_marks, warning_marks
from demo.rows.messages import digest_marks
from demo.rows.work import OLD_EVENT
from demo.scene import SECOND, Mood, Row, Scene

#: The figures that are kept for each day, and what the demo says that they were.
_FIGURES: Final = {
    "logins": 7,
    "actions_opened": 3,
    "actions_closed": 2,
    "cases_opened": 1,
    "cases_closed": 1,
    "notifications_created": 4,
    "messages_sent": 5,
    "audit_events": 31,
    "exchanges_completed": 0,
}
#: What some of the tiles of a dashboard have shown.
_TILES: Final = {"users_active": 3, "actions_overdue": 0, "health": {"status": "ok"}}


def job_items(scene: Scene) -> Iterator[Row]:
    """Yield marks of done items, old ones, and an item that has failed two or three times."""
    for marks in (alert_marks, reminder_marks, warning_marks, digest_marks):
        yield from marks(scene)
    base = {"job": "demo.earlier", "state": "done", "attempts": 1}
    limit = scene.ago(days=400)
    moments = [limit, limit - SECOND, *([limit - timedelta(days=1)] * (5 * scene.scale))]
    for number, slot in enumerate(moments):
        yield base | {"item": str(number), "slot": slot}
    attempts = 2 if scene.mood is Mood.WELL else 3
    yield base | {
        "item": "odd", "state": "error", "slot": limit - SECOND, "attempts": attempts,
        "detail": "no date",
    }  # fmt: skip


def reports(scene: Scene) -> Iterator[Row]:
    """Yield the health report of an hour ago, which has become better or worse, and old ones."""
    slot = scene.ago(hours=1)
    status = {Mood.WELL: "fail", Mood.WORRYING: "warning", Mood.FAILING: "ok"}[scene.mood]
    yield _report("health", slot.strftime("%Y-%m-%dT%H:%M:%SZ"), slot, status=status)
    limit = scene.ago(days=730)
    for number, created_at in enumerate((limit, limit - SECOND)):
        yield _report("overnight", f"old:{number}", created_at, opened=number)


def _report(kind: str, period: str, slot: object, **summary: object) -> Row:
    return {"kind": kind, "period_key": period, "slot": slot, "created_at": slot,
            "summary": summary, "body": "Zoë 李 🎁"}  # fmt: skip


def archived_records(scene: Scene) -> Iterator[Row]:
    """Yield what has been in the archive for long, and a copy whose original is still there."""
    limit = scene.ago(days=2555)
    old = {"source_table": "reports", "record_at": limit, "data": {"title": "Zoë 李 🎁"}}
    for number, archived_at in enumerate((limit, limit - SECOND), start=100_000):
        yield old | {"source_id": number, "archived_at": archived_at}
    yield {"source_table": "audit_log", "source_id": OLD_EVENT, "record_at": scene.ago(days=366),
           "data": {"id": OLD_EVENT}, "archived_at": scene.ago(days=1)}  # fmt: skip


def metric_values(scene: Scene) -> Iterator[Row]:
    """Yield a week of figures with gaps, and tiles, for every second tenant; others are new."""
    if scene.index % 2 == 0:
        return
    yesterday = scene.today - timedelta(days=1)
    for back in range(1, 8):
        known = dict(_FIGURES)
        if back == 3:
            del known["messages_sent"]
        for metric, value in known.items():
            yield _figure(scene, metric, value, (yesterday - timedelta(days=back)).isoformat())
    # Counted before the day was over.
    yield _figure(scene, "logins", 1, yesterday.isoformat())
    # The last second of the hour before, after which tiles are due again.
    shown_at = scene.at.replace(minute=0, second=0) - SECOND
    for metric, shown in _TILES.items():
        yield _figure(scene, metric, shown, "current") | {"as_of": shown_at}


def _figure(scene: Scene, metric: str, value: object, bucket: str) -> Row:
    return {"metric": metric, "bucket": bucket, "value": value, "as_of": scene.ago(days=1)}
