"""Actions and cases, and the log of who did what."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from demo.rows.people import ADMIN, DISABLED, KNOWN_USERS, MEMBER
from demo.scene import SECOND, Row, Scene, errand

#: An entry of the audit log that is in the archive already.
OLD_EVENT: Final = 1

_CLOSED: Final = {"action": "completed", "case": "closed"}
_OPEN: Final = {"action": "created", "case": "open"}


def work_items(scene: Scene) -> Iterator[Row]:
    """Yield what is late and what is not, the edges of yesterday, and ordinary work."""
    source = scene.random("work_items")
    opened_at = scene.ago(days=20)
    ordinary = {"title": "", "opened_at": opened_at, "updated_at": opened_at}
    for row in (*_due(scene), *_dated(scene), *_ordinary(scene)):
        yield ordinary | {"title": errand(source)} | row


def _due(scene: Scene) -> Iterator[Row]:
    """Yield actions around their due date, and what looks like a late action and is none."""
    today = scene.today
    yesterday = today - timedelta(days=1)
    action = {"kind": "action", "status": "created", "due_date": yesterday}
    yield action | {"owner_id": MEMBER}
    yield action | {"owner_id": DISABLED, "is_overdue": False, "status": "in_progress"}
    yield action | {"owner_id": None, "due_date": today - timedelta(days=10)}
    yield action | {"owner_id": ADMIN, "title": "🎁" * 300}
    yield action | {"due_date": today}
    yield action | {"due_date": today + timedelta(days=1)}
    yield action | {"due_date": None}
    yield action | {"status": "completed"}
    yield action | {"status": "cancelled"}
    yield action | {"is_overdue": True, "overdue_since": yesterday}
    yield action | {"kind": "case", "status": "open"}


def _dated(scene: Scene) -> Iterator[Row]:
    """Yield what was opened, and what was closed, at the edges of yesterday and last month."""
    for kind in ("action", "case"):
        for moment in (*scene.edges_of_yesterday(), *scene.edges_of_last_month()):
            yield {"kind": kind, "status": _OPEN[kind], "opened_at": moment}
            yield {"kind": kind, "status": _CLOSED[kind], "closed_at": moment}


def _ordinary(scene: Scene) -> Iterator[Row]:
    source = scene.random("work_items.ordinary")
    for _ in range(30 * scene.scale):
        kind = source.choice(("action", "case"))
        opened_at = scene.within(source, days=60)
        closed_at = opened_at + timedelta(hours=source.randrange(1, 500))
        is_closed = closed_at < scene.at and source.random() < 0.8
        yield {
            "kind": kind,
            "owner_id": source.choice((None, *range(1, KNOWN_USERS + 1))),
            "status": _CLOSED[kind] if is_closed else _OPEN[kind],
            "due_date": scene.today + timedelta(days=source.randrange(-40, 40)),
            "opened_at": opened_at,
            "closed_at": closed_at if is_closed else None,
            "updated_at": closed_at if is_closed else opened_at,
        }


def audit_log(scene: Scene) -> Iterator[Row]:
    """Yield what is for the archive, logins at edges of days and months, and ordinary events."""
    source = scene.random("audit_log")
    noon = scene.yesterday.start + timedelta(hours=12)
    logins = [*scene.edges_of_yesterday(), noon, noon, noon + timedelta(minutes=7)]
    logins += scene.edges_of_last_month()
    limit = scene.ago(days=365)
    # The first is in the archive; the second is exactly as old as one may become.
    events = [("logout", limit - SECOND), ("logout", limit), ("logout", limit - SECOND)]
    events += [("export", limit - timedelta(days=1))] * (10 * scene.scale)
    events += [("login", moment) for moment in logins]
    events += [("export", noon), ("item.updated", noon)]
    for _ in range(60 * scene.scale):
        action = source.choice(("login", "logout", "item.created", "item.updated"))
        events.append((action, scene.within(source, days=12)))
    for action, created_at in events:
        yield {
            "actor_id": source.randint(1, KNOWN_USERS),
            "action": action,
            "entity": f"work_item:{source.randint(1, 40)}",
            "details": {"by": errand(source)},
            "created_at": created_at,
        }
