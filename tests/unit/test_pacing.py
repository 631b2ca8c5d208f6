"""Claims run ahead of the threads by what begins soon, and of slow visits by no more than before."""

import pytest

from cronrunner.runner.pacing import Pace

LEAST = 16


@pytest.fixture
def pace() -> Pace:
    return Pace()


def test_an_unknown_server_gets_the_least(pace: Pace) -> None:
    assert pace.room("one", 0, least=LEAST, now=1.0) == LEAST


def test_a_queue_of_which_half_is_there_is_left_alone(pace: Pace) -> None:
    pace.filled("one", 100, now=1.0)

    assert pace.room("one", 51, least=LEAST, now=1.001) == 0
    assert pace.room("one", 50, least=LEAST, now=1.001) > 0


@pytest.mark.parametrize(
    ("seconds", "length"), [(0.01, 80), (0.1, LEAST), (10.0, LEAST), (0.0001, 256), (0.0, LEAST)]
)
def test_a_queue_is_filled_with_what_begins_in_a_tenth_of_a_second(
    pace: Pace, seconds: float, length: int
) -> None:
    pace.filled("one", LEAST, now=1.0)

    # Half of it has begun meanwhile.
    room = pace.room("one", LEAST // 2, least=LEAST, now=1.0 + seconds)
    assert room + LEAST // 2 == pytest.approx(length, abs=1)


def test_many_threads_get_their_share_at_any_pace(pace: Pace) -> None:
    pace.filled("one", 1000, now=1.0)

    assert pace.room("one", 0, least=1000, now=100.0) == 1000


def test_servers_are_paced_apart(pace: Pace) -> None:
    pace.filled("fast", LEAST, now=1.0)
    pace.filled("slow", LEAST, now=1.0)

    assert pace.room("fast", 0, least=LEAST, now=1.01) == 160
    assert pace.room("slow", 8, least=LEAST, now=2.0) == LEAST - 8


def test_a_queue_that_is_long_for_its_pace_gets_nothing(pace: Pace) -> None:
    pace.filled("one", 256, now=1.0)

    assert pace.room("one", 100, least=8, now=100.0) == 0


def test_what_was_queued_again_does_no_harm(pace: Pace) -> None:
    pace.filled("one", 4, now=1.0)

    assert pace.room("one", 8, least=LEAST, now=2.0) == LEAST - 8
