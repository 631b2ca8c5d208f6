"""Cron expressions, as Debian's cron reads them."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise, takewhile
from zoneinfo import ZoneInfo

import pytest

from cronrunner import schedule
from cronrunner.schedule import Schedule


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        ("0 0 * * *", "2026-03-01 00:00", "2026-03-02 00:00"),
        ("*/15 * * * *", "2026-03-01 00:07", "2026-03-01 00:15"),
        # 0 and 7 are Sunday; 2026-03-01 is one.
        ("0 5 * * 0", "2026-03-01 06:00", "2026-03-08 05:00"),
        ("0 5 * * 7", "2026-03-01 06:00", "2026-03-08 05:00"),
        ("0 5 * * sun", "2026-03-01 06:00", "2026-03-08 05:00"),
        # Day of month or day of week when both are restricted.
        ("0 0 13 * 5", "2026-03-01 00:00", "2026-03-06 00:00"),
        ("0 0 29 2 *", "2026-03-01 00:00", "2028-02-29 00:00"),
        ("  0   4 * * *  ", "2026-03-01 00:00", "2026-03-01 04:00"),
    ],
)
def test_the_next_slot_is_found(expression: str, after: str, expected: str) -> None:
    assert next(Schedule(expression=expression).after(at(after))) == at(expected)


def test_a_slot_is_meant_in_its_zone_and_given_in_utc() -> None:
    slots = Schedule(expression="30 2 * * *", zone="Europe/Berlin").after(at("2026-07-01 12:00"))

    found = next(slots)
    assert found == at("2026-07-02 00:30")
    assert found.tzinfo is UTC


def test_a_time_that_the_change_of_clocks_leaves_out_comes_right_after_it() -> None:
    # Berlin goes from 02:00 to 03:00 on 29 March 2026.
    slots = Schedule(expression="30 2 * * *", zone="Europe/Berlin").after(at("2026-03-28 12:00"))

    assert next(slots) == at("2026-03-29 01:00")


def test_an_interval_has_its_slots_at_its_multiples() -> None:
    quarter = Schedule(every=timedelta(minutes=15))
    now = at("2026-03-01 00:29")

    assert quarter.newest(now) == at("2026-03-01 00:15")
    assert quarter.newest(at("2026-03-01 00:15")) == at("2026-03-01 00:15")
    assert next(quarter.after(now)) == at("2026-03-01 00:30")
    assert quarter.count_between(at("2026-03-01 00:15"), at("2026-03-01 01:15"), limit=9) == 3
    assert quarter.count_between(at("2026-02-01 00:15"), at("2026-03-01 01:15"), limit=9) == 9


def test_without_a_schedule_there_are_no_slots() -> None:
    assert Schedule().newest(at("2026-03-01 00:00")) is None
    assert list(Schedule().after(at("2026-03-01 00:00"))) == []


def minutes_of_debian(expression: str, zone: str, start: datetime, end: datetime) -> list[datetime]:
    """Give the slots as a cron would that wakes up every minute and looks at the wall clock.

    By the book of Debian's cron: fixed times that the clock skips run when it has skipped them,
    and those that come twice run once; times with a star follow the clock.
    """
    minute, hour = expression.split()[:2]
    fixed = "*" not in (minute[0], hour[0])
    wanted = {
        (h, m)
        for h in (range(24) if hour == "*" else [int(hour)])
        for m in (range(0, 60, int(minute[2:])) if minute[0] == "*" else [int(minute)])
    }
    found: list[datetime] = []
    seen: set[tuple[object, int, int]] = set()
    before = (start - timedelta(minutes=1)).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    now = start
    while now < end:
        wall = now.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
        minutes = int((wall - before) / timedelta(minutes=1))
        passed = [before + timedelta(minutes=n + 1) for n in range(minutes)] if fixed else [wall]
        for each in passed:
            key = (each.date(), each.hour, each.minute)
            if (each.hour, each.minute) in wanted and not (fixed and key in seen):
                seen.add(key)
                found.append(now)
        before = max(before, wall) if fixed else wall
        now += timedelta(minutes=1)
    return found


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
@pytest.mark.parametrize("expression", ["30 2 * * *", "15 1 * * *", "0 0 * * *", "*/30 * * * *"])
@pytest.mark.parametrize("day", ["2026-03-08", "2026-03-29", "2026-04-05", "2026-10-04",
                                 "2026-10-25", "2026-11-01"])  # fmt: skip
def test_due_over_both_changes_of_clocks_is_what_a_count_of_minutes_gives(
    zone: str, expression: str, day: str
) -> None:
    start = at(f"{day} 00:00") - timedelta(days=1)
    end = start + timedelta(days=3)
    schedule_ = Schedule(expression=expression, zone=zone)
    expected = minutes_of_debian(expression, zone, start, end)

    listed = list(takewhile(lambda slot: slot < end, schedule_.after(start - timedelta(seconds=1))))
    assert listed == expected
    # It changes at a slot and nowhere else.
    for slot, next_ in pairwise([*expected, end]):
        for now in (slot, slot + timedelta(minutes=1), next_ - timedelta(minutes=1)):
            assert schedule_.newest(now) == slot, now


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "0 0 * *",
        "0 0 0 * * *",
        "@daily",
        "60 0 * * *",
        "0 0 31 2 *",
        "nonsense",
        "* * * * mon,",
    ],
)
def test_what_is_no_expression_or_can_never_fire_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match="expected a cron expression") as caught:
        schedule.check(expression)

    assert repr(expression) in str(caught.value)
