"""Periods, and when what is done once in one is due."""

from datetime import UTC, date, datetime, timedelta

import pytest

from jobs.periods import period_of

SUNDAY = date(2026, 3, 1)


@pytest.mark.parametrize(
    ("frequency", "day", "today", "key", "due_on"),
    [
        ("daily", 1, SUNDAY, "2026-03-01", SUNDAY),
        ("weekly", 1, SUNDAY, "2026-W09", date(2026, 2, 23)),
        ("weekly", 7, SUNDAY, "2026-W09", SUNDAY),
        ("weekly", 7, date(2026, 2, 23), "2026-W09", SUNDAY),
        ("weekly", 1, date(2027, 1, 3), "2026-W53", date(2026, 12, 28)),
        ("weekly", 3, date(2025, 12, 29), "2026-W01", date(2025, 12, 31)),
        ("monthly", 1, SUNDAY, "2026-03", SUNDAY),
        ("monthly", 31, date(2026, 2, 10), "2026-02", date(2026, 2, 28)),
        ("monthly", 31, date(2028, 2, 10), "2028-02", date(2028, 2, 29)),
        ("monthly", 30, date(2026, 4, 1), "2026-04", date(2026, 4, 30)),
    ],
)
def test_a_period_has_a_name_and_a_day(frequency, day, today, key, due_on) -> None:
    period = period_of(today, frequency, day, 6, "UTC")

    assert period.key == key
    assert period.due_at == datetime(due_on.year, due_on.month, due_on.day, 6, tzinfo=UTC)


@pytest.mark.parametrize(
    ("frequency", "day", "hour"),
    [
        ("fortnightly", 1, 0),
        ("weekly", 0, 0),
        ("weekly", 8, 0),
        ("monthly", 0, 0),
        ("monthly", 32, 0),
        ("daily", 1, 24),
        ("daily", 1, -1),
    ],
)
def test_what_is_no_frequency_day_or_hour_is_refused(frequency, day, hour) -> None:
    with pytest.raises(ValueError, match=r"expected|must be|[Ii]nvalid"):
        period_of(SUNDAY, frequency, day, hour, "UTC")


@pytest.mark.parametrize(
    ("today", "hour", "due_at"),
    [
        (date(2026, 3, 7), 2, datetime(2026, 3, 7, 7, tzinfo=UTC)),
        (date(2026, 3, 8), 2, datetime(2026, 3, 8, 7, tzinfo=UTC)),  # clocks go from 2 to 3
        (date(2026, 11, 1), 1, datetime(2026, 11, 1, 5, tzinfo=UTC)),  # it is 1 twice: the first
        (date(2026, 11, 2), 1, datetime(2026, 11, 2, 6, tzinfo=UTC)),
    ],
)
def test_the_hour_is_that_of_the_clocks_on_the_wall(today, hour, due_at) -> None:
    period = period_of(today, "daily", 1, hour, "America/New_York")

    assert period.due_at - due_at == timedelta()
