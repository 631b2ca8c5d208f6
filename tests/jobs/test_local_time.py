"""Calendar days."""

from datetime import UTC, date, datetime, timedelta

import pytest

from jobs.local_time import days_before, local_date, local_day, time_zone


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


@pytest.mark.parametrize(
    ("zone", "moment", "days", "before"),
    [
        # Clocks go forward on 2026-03-08, and back on 2025-11-02.
        ("America/New_York", "2026-03-10T22:00", 3, "2026-03-07T23:00"),
        ("America/New_York", "2025-11-05T23:00", 7, "2025-10-29T22:00"),
        ("Europe/Berlin", "2026-03-30T10:00", 1, "2026-03-29T10:00"),
        ("Europe/Berlin", "2026-03-30T10:00", 2, "2026-03-28T11:00"),
        ("Australia/Lord_Howe", "2026-04-06T00:00", 1, "2026-04-05T00:00"),
        ("Australia/Lord_Howe", "2026-04-06T00:00", 2, "2026-04-03T23:30"),
        # At half past two nobody's clock was there on 2026-03-29: it is the hour after.
        ("Europe/Berlin", "2026-03-30T00:30", 1, "2026-03-29T01:30"),
        # And twice on 2025-10-26: it is the first.
        ("Europe/Berlin", "2025-10-27T01:30", 1, "2025-10-26T00:30"),
        # The second half past two of that day itself, a day earlier.
        ("Europe/Berlin", "2025-10-26T01:30", 1, "2025-10-25T00:30"),
    ],
)
def test_days_earlier_the_clock_on_the_wall_shows_the_same(zone, moment, days, before) -> None:
    found = days_before(datetime.fromisoformat(f"{moment}Z"), days, zone)

    assert found == datetime.fromisoformat(f"{before}Z")
    assert found.tzinfo is UTC


def test_there_is_no_day_before_the_first() -> None:
    with pytest.raises(ValueError, match="9999999 days before"):
        days_before(datetime(2026, 3, 1, tzinfo=UTC), 9999999, "UTC")


@pytest.mark.parametrize(
    "name", ["", "Mars/Olympus", "America", "../etc/passwd", "Europe/Berlin\0"]
)
def test_a_zone_that_does_not_exist_is_a_bad_value(name) -> None:
    with pytest.raises(ValueError, match="expected a time zone"):
        time_zone(name)


def test_no_day_comes_after_the_last() -> None:
    never = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)

    assert local_date(never, "Pacific/Kiritimati") == date(9999, 12, 31)
