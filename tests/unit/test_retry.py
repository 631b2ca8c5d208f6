"""When an attempt is repeated."""

import random
from datetime import timedelta

import pytest

from cronrunner.model import RetryPolicy
from cronrunner.retry import delay_before_next

POLICY = RetryPolicy(attempts=4, wait=timedelta(seconds=10), cap=timedelta(seconds=25))


def delay(attempt: int, *, asked: timedelta | None = None, seed: int = 1) -> timedelta | None:
    return delay_before_next(POLICY, attempt, asked=asked, rng=random.Random(seed))


@pytest.mark.parametrize(("attempt", "ceiling"), [(1, 10), (2, 20), (3, 25)])
def test_the_wait_is_drawn_from_below_a_ceiling_that_doubles_up_to_the_cap(
    attempt: int, ceiling: int
) -> None:
    waits = [delay(attempt, seed=seed) for seed in range(200)]

    assert all(timedelta() <= wait <= timedelta(seconds=ceiling) for wait in waits if wait)
    assert max(wait for wait in waits if wait) > timedelta(seconds=ceiling * 0.9)
    assert min(wait for wait in waits if wait) < timedelta(seconds=ceiling * 0.1)


def test_the_last_attempt_is_the_last() -> None:
    assert delay(4) is None


def test_a_delay_that_the_job_asked_for_is_taken_as_it_is() -> None:
    assert delay(1, asked=timedelta(minutes=1)) == timedelta(minutes=1)


def test_asking_gives_no_further_attempts() -> None:
    assert delay(4, asked=timedelta(minutes=1)) is None
