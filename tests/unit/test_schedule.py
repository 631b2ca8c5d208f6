"""Cron expressions, as Debian's cron reads them."""

from datetime import UTC, datetime

import pytest

from cronrunner import schedule


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
    assert schedule.next_slot(expression, at(after)) == at(expected)


def test_a_slot_is_meant_in_its_zone_and_given_in_utc() -> None:
    found = schedule.next_slot("30 2 * * *", at("2026-07-01 12:00"), "Europe/Berlin")

    assert found == at("2026-07-02 00:30")
    assert found.tzinfo is UTC


def test_a_time_that_the_change_of_clocks_leaves_out_comes_right_after_it() -> None:
    # Berlin goes from 02:00 to 03:00 on 29 March 2026.
    assert schedule.next_slot("30 2 * * *", at("2026-03-28 12:00"), "Europe/Berlin") == at(
        "2026-03-29 01:00"
    )


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
