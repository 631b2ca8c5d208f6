"""Controls and their evidence, access reviews, and what expires."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from demo.rows.people import MEMBER
from demo.scene import Row, Scene

_CONTROLS: Final = 6


def framework_controls(_: Scene) -> Iterator[Row]:
    """Yield a handful of controls; the last is retired."""
    for number in range(1, _CONTROLS + 1):
        yield {
            "framework_code": "ISO27001",
            "control_code": f"A.{number}",
            "title": f"Control {number}",
            "retired": number == _CONTROLS,
        }


def control_evidence(scene: Scene) -> Iterator[Row]:
    """Yield evidence of each result for each control but the first, which has none."""
    source = scene.random("control_evidence")
    for control in range(2, _CONTROLS + 1):
        for _ in range(4 * scene.scale):
            yield {
                "control_id": control,
                "result": source.choice(("pass", "warning", "fail")),
                "collected_at": scene.within(source, days=120),
                "valid_until": scene.today + timedelta(days=source.choice((-1, 0, 30))),
            }


def uar_comparisons(_: Scene) -> Iterator[Row]:
    """Yield a comparison of each frequency."""
    for frequency, run_day in (("daily", None), ("weekly", 7), ("monthly", 1)):
        yield {
            "name": f"{frequency.title()} review",
            "left_dataset": "directory",
            "right_dataset": "payroll",
            "frequency": frequency,
            "run_day": run_day,
            "run_hour": 1,
            "ignore_fields": ["updated"],
            "enabled": True,
        }


def uar_rows(scene: Scene) -> Iterator[Row]:
    """Yield two lists of people who mostly agree."""
    source = scene.random("uar_rows")
    for number in range(10 * scene.scale):
        role = source.choice(("admin", "editor", "reader"))
        yield {"dataset": "directory", "row_key": f"p{number}", "attrs": {"role": role}}
        if number % 5:
            paid_as = role if number % 3 else "guest"
            yield {"dataset": "payroll", "row_key": f"p{number}", "attrs": {"role": paid_as}}


def expiring_assets(scene: Scene) -> Iterator[Row]:
    """Yield subscriptions, credentials and certificates, expired, soon and later."""
    for kind in ("subscription", "credential", "certificate"):
        for days in (-3, 0, 7, 30, 31, 400):
            yield {
                "kind": kind,
                "name": f"{kind.title()} that ends in {days} days",
                "owner_id": MEMBER,
                "expires_on": scene.today + timedelta(days=days),
                "auto_renew": kind == "subscription",
                "amount_minor": 4900,
                "currency": "USD",
            }
