"""Whether a quarantined pair is left out, or probed."""

from datetime import UTC, datetime, timedelta

import pytest

from cronrunner.model import Pair
from cronrunner.quarantine import why_left_out

NIGHT = datetime(2026, 3, 1, 2, tzinfo=UTC)
PAIR = Pair(
    job="a",
    tenant="acme",
    last_run_at=NIGHT,
    consecutive_failures=5,
    smoothed_seconds=1.0,
    quarantined_at=NIGHT + timedelta(minutes=10),
    probed_at=NIGHT,
    code_digest="old",
)


@pytest.mark.parametrize(
    ("after", "is_left_out"),
    [
        (timedelta(minutes=30), True),
        (timedelta(hours=22), True),
        # The next night's run may begin a little earlier than the last one.
        (timedelta(hours=23, minutes=59), False),
        (timedelta(days=3), False),
    ],
)
def test_it_is_left_out_but_for_one_probe_a_day(after: timedelta, *, is_left_out: bool) -> None:
    why = why_left_out(PAIR, "old", at=NIGHT + after, probe=timedelta(days=1))

    assert why == ("quarantined since 2026-03-01 02:10 UTC" if is_left_out else None)


def test_it_is_not_left_out_when_the_code_has_changed() -> None:
    assert why_left_out(PAIR, "new", at=NIGHT, probe=timedelta(days=1)) is None
