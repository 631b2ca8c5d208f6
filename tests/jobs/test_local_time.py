"""Calendar days."""

from datetime import UTC, date, datetime, timedelta

import pytest

from jobs.local_time import local_date, local_day


@pytest.mark.parametrize(
    ("zone", "day"),
    [
        ("UTC", date(2026, 3, 1)),
        ("America/New_York", date(2026, 2, 28)),
        ("Pacific/Kiritimati", date(2026, 3, 1)),
    ],
)
def test_the_date_depends_on_the_zone(zone, day) -> None:
    assert local_date(datetime(2026, 3, 1, tzinfo=UTC), zone) == day


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("UTC", date(2026, 3, 29), 24),
        ("Europe/Berlin", date(2026, 3, 29), 23),
        ("Europe/Berlin", date(2025, 10, 26), 25),
        ("Australia/Lord_Howe", date(2025, 10, 5), 23.5),
        ("Australia/Lord_Howe", date(2026, 4, 5), 24.5),
        ("Pacific/Apia", date(2011, 12, 30), 0),  # that day was skipped
    ],
)
def test_days_have_the_hours_that_they_have(zone, day, hours) -> None:
    window = local_day(day, zone)

    assert window.end - window.start == timedelta(hours=hours)


def test_a_midnight_that_does_not_exist_is_the_instant_after_the_gap() -> None:
    # Clocks went from 23:59:59 on the 5th to 01:00 on the 6th.
    window = local_day(date(2025, 9, 7), "America/Santiago")

    assert window.start == datetime(2025, 9, 7, 4, tzinfo=UTC)
    assert window.end - window.start == timedelta(hours=23)


def test_a_midnight_that_comes_twice_is_the_first() -> None:
    # Clocks went from 00:59:59 back to 00:00.
    window = local_day(date(2025, 11, 2), "America/Havana")

    assert window.start == datetime(2025, 11, 2, 4, tzinfo=UTC)
    assert window.end - window.start == timedelta(hours=25)


def test_days_follow_each_other_without_a_gap() -> None:
    first = local_day(date(2026, 3, 28), "Europe/Berlin")
    second = local_day(date(2026, 3, 29), "Europe/Berlin")

    assert first.end == second.start
