"""Access reviews: what is compared when, what was compared before, and who has access."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from zoneinfo import ZoneInfo

from demo.scene import Row, Scene

_ABSENT: Final = "nobody"


def uar_comparisons(scene: Scene) -> Iterator[Row]:
    """Yield reviews that are due now and those that are not yet, or not any more."""
    for row, _ in _reviews(scene):
        yield {
            "left_dataset": "directory",
            "right_dataset": "payroll",
            "run_day": None,
            "ignore_fields": ["updated"],
            "enabled": True,
            **row,
        }


def uar_executions(scene: Scene) -> Iterator[Row]:
    """Yield what was tried in this period before the slot."""
    for number, (_, tried) in enumerate(_reviews(scene), start=1):
        if tried:
            yield {
                "comparison_id": number,
                "period_key": scene.today.isoformat(),
                "slot": scene.ago(minutes=30),
                "rows_left": 0,
                "rows_right": 0,
                "findings": 0,
                **tried,
            }


def _reviews(scene: Scene) -> Iterator[tuple[Row, Row | None]]:
    """Yield each comparison, and its execution in the period of the slot if it has one."""
    hour = scene.at.astimezone(ZoneInfo(scene.zone)).hour
    weekday = scene.today.isoweekday()
    daily = {"frequency": "daily", "run_hour": 0}
    failed = {"status": "failed", "error": "expected rows in both datasets"}
    yield {"name": "Due in this hour", "frequency": "daily", "run_hour": hour}, None
    if hour < 23:
        yield {"name": "Due in the next", "frequency": "daily", "run_hour": hour + 1}, None
    this_week = {"frequency": "weekly", "run_hour": hour}
    yield this_week | {"name": "Due on this day of the week", "run_day": weekday}, None
    if weekday < 7:
        yield this_week | {"name": "Due on the next", "run_day": weekday + 1}, None
    yield {"name": "First of the month", "frequency": "monthly", "run_hour": 0}, None
    yield {"name": "Last of it", "frequency": "monthly", "run_day": 31, "run_hour": 0}, None
    yield daily | {"name": "Against nobody", "right_dataset": _ABSENT}, None
    yield daily | {"name": "Done today"}, {"status": "done", "attempts": 1}
    yield daily | {"name": "Failed twice today"}, failed | {"attempts": 2}
    yield daily | {"name": "Failed too often"}, failed | {"attempts": 3}
    yield daily | {"name": "Switched off", "enabled": False}, None


def uar_rows(scene: Scene) -> Iterator[Row]:
    """Yield two lists of people who mostly agree, with a difference of each kind."""
    source = scene.random("uar_rows")
    for number in range(10 * scene.scale):
        role = source.choice(("admin", "editor", "reader"))
        paid_as = role if number % 3 else "guest"
        if number % 7 != 6:
            yield _row("directory", f"p{number}", role=role, level=1, updated=number)
        if number % 5:
            yield _row("payroll", f"p{number}", role=paid_as, level=1.0, team=None)
    yield _row("directory", "p1", role="admin")
    # Equal only when both are composed alike.
    yield _row("directory", "Zoë", level=1)
    yield _row("payroll", "Zoe\N{COMBINING DIAERESIS}", level=True)


def _row(dataset: str, key: str, **attrs: object) -> Row:
    return {"dataset": dataset, "row_key": key, "attrs": attrs}
