"""What a tenant runs on: integrations, backups, earlier runs of jobs and what they kept."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from demo.scene import SECOND, Mood, Row, Scene, digest

#: Enabled integrations of each of the two sorts: kind, provider.
_SERVICES: Final = (("oauth", "calendar"), ("webhook", "tracker"), ("oauth", "storage"))
_MAILBOXES: Final = (("mailbox", "imap"), ("mailbox", "imap"), ("mailbox", "exchange"))

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


def integrations(scene: Scene) -> Iterator[Row]:
    """Yield integrations and mailboxes: all well, some not, none well; and one switched off."""
    bad = {Mood.WELL: 0, Mood.WORRYING: 1, Mood.FAILING: 3}[scene.mood]
    base = {"enabled": True, "created_at": scene.ago(days=90), "last_ok_at": scene.ago(minutes=5)}
    for sort, state in ((_SERVICES, "degraded"), (_MAILBOXES, "failing")):
        for number, (kind, provider) in enumerate(sort):
            is_bad = number < bad
            yield base | {
                "kind": kind,
                "provider": provider,
                "address": f"inbox{number}@mail.example" if kind == "mailbox" else None,
                "state": state if is_bad else "ok",
                "failures": 3 if is_bad else 0,
                "config_version": "2",
                "token_expires_at": scene.ago(hours=-48) if kind == "oauth" else None,
            }
    yield base | {"kind": "webhook", "provider": "old", "enabled": False, "state": "degraded",
                  "failures": 9}  # fmt: skip


def backups(scene: Scene) -> Iterator[Row]:
    """Yield two components: verified in time, too long ago or never, and found corrupt."""
    source = scene.random("backups")
    long_ago = scene.ago(days=8)
    verified: dict[str, list[Row]] = {
        "database": [{"verified_at": long_ago, "verify_status": "ok"}],
        "files": [{"verified_at": scene.ago(days=7), "verify_status": "ok"}],
    }
    if scene.mood is Mood.WORRYING:
        verified["database"] = [{"verified_at": long_ago - SECOND, "verify_status": "ok"}]
        verified["files"] = [{}]
    elif scene.mood is Mood.FAILING:
        verified["files"].append({"verified_at": scene.ago(days=1), "verify_status": "corrupt"})
    for component, rows in verified.items():
        for number, row in enumerate(rows):
            yield {
                "component": component,
                "location": f"{component}-{number}.tar.gz",
                "size_bytes": source.randrange(10**6, 10**9),
                "sha256": digest(source),
                "status": "finished",
                "finished_at": scene.ago(days=9 - number),
                **row,
            }


def job_items(scene: Scene) -> Iterator[Row]:
    """Yield marks of done items, and an item that has failed two or three times."""
    base = {"job": "exchanges.purge", "slot": scene.ago(days=1)}
    for number in range(5 * scene.scale):
        yield base | {"item": f"warn:{number}", "state": "done", "attempts": 1}
    attempts = 2 if scene.mood is Mood.WELL else 3
    yield base | {"item": "17", "state": "error", "attempts": attempts, "detail": "no date"}


def reports(scene: Scene) -> Iterator[Row]:
    """Yield the health report of an hour ago; every second tenant has become better or worse."""
    slot = scene.ago(hours=1)
    status = {Mood.WELL: "fail", Mood.WORRYING: "warning", Mood.FAILING: "ok"}[scene.mood]
    yield {
        "kind": "health",
        "period_key": slot.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "slot": slot,
        "summary": {"status": status, "components": {}},
        "body": "",
        "created_at": slot,
    }


def metric_values(scene: Scene) -> Iterator[Row]:
    """Yield a week of figures with gaps for every second tenant; the others are new."""
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


def _figure(scene: Scene, metric: str, value: int, bucket: str) -> Row:
    return {"metric": metric, "bucket": bucket, "value": value, "as_of": scene.ago(days=1)}
