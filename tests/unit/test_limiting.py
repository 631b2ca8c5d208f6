"""Rates that hold for all who share them."""

import multiprocessing
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cronrunner.errors import DeadlineError
from cronrunner.limiting import Limits, RateLimit

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def limits() -> Iterator[Limits]:
    limits = Limits()
    yield limits
    limits.close()


def limit(
    limits: Limits, per_second: float = 0.1, *, burst: int | None = 2, seconds: float = 60.0
) -> RateLimit:
    return RateLimit(
        limits,
        "mail",
        per_second,
        burst=burst,
        clock=lambda: NOW,
        remaining=lambda: timedelta(seconds=seconds),
    )


def test_there_are_as_many_permits_as_a_burst_and_no_more(limits: Limits) -> None:
    mine, theirs = limit(limits), limit(limits)

    assert [mine.take(), theirs.take(), mine.take(), theirs.take()] == [True, True, False, False]


def test_names_are_limits_of_their_own(limits: Limits) -> None:
    assert limits.take("a", 1, timedelta(hours=1)) == 0
    assert limits.take("b", 1, timedelta(hours=1)) == 0
    assert limits.take("a", 1, timedelta(hours=1)) > 3590


def test_in_no_window_of_the_period_are_there_more_than_the_burst(limits: Limits) -> None:
    taken: list[Any] = []
    fast = limit(limits, per_second=50, burst=5)
    while len(taken) < 23:
        fast.wait()
        taken.append(time.monotonic())

    # A permit is given a little before it is taken note of here.
    assert all(later - earlier > 0.09 for earlier, later in zip(taken, taken[5:], strict=False))


def test_a_lower_rate_counts_what_a_higher_one_was_given(limits: Limits) -> None:
    high, low = limit(limits, burst=3), limit(limits, burst=1)

    assert [high.take(), low.take(), high.take(), high.take(), high.take()] == [
        True, False, True, True, False,
    ]  # fmt: skip


@pytest.mark.parametrize(("per_second", "burst"), [(3.9, 3), (0.5, 1)])
def test_a_burst_is_what_one_second_allows(limits: Limits, per_second: float, burst: int) -> None:
    plain = limit(limits, per_second, burst=None)

    assert [plain.take() for _ in range(burst + 1)] == [True] * burst + [False]


def test_a_pause_stops_all_until_it_is_over(limits: Limits) -> None:
    mine, theirs = limit(limits), limit(limits)
    mine.pause(NOW + timedelta(seconds=0.3))
    mine.pause(NOW + timedelta(seconds=0.1))

    assert theirs.is_paused
    assert not theirs.take()
    theirs.wait()
    assert not mine.is_paused


def test_waiting_for_what_comes_too_late_is_refused_at_once(limits: Limits) -> None:
    mine = limit(limits, seconds=5.0)
    mine.pause(NOW + timedelta(seconds=6))
    began = time.monotonic()
    with pytest.raises(DeadlineError, match="the next permit of 'mail' comes after"):
        mine.wait()

    assert time.monotonic() - began < 1.0


@pytest.mark.parametrize(("per_second", "burst"), [(0, 1), (-1, 1), (float("inf"), 1), (1, 0)])
def test_a_rate_that_permits_nothing_is_a_mistake(
    limits: Limits, per_second: float, burst: int
) -> None:
    with pytest.raises(ValueError, match="expected a"):
        limit(limits, per_second, burst=burst)


def test_threads_together_get_what_one_would_get(limits: Limits) -> None:
    taken: list[Any] = []

    def take() -> None:
        mine = limit(limits, per_second=0.01, burst=40)
        taken.extend(mine.take() for _ in range(20))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (taken.count(True), len(taken)) == (40, 160)


def _take_many(path: str, count: int) -> int:
    limits = Limits(path)
    taken = sum(limits.take("mail", 60, timedelta(hours=1)) == 0 for _ in range(count))
    limits.close()
    return taken


def test_processes_together_get_what_one_would_get(limits: Limits) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        taken = pool.starmap(_take_many, [(limits.path, 40)] * 3)

    assert sum(taken) == 60
    assert limits.take("mail", 60, timedelta(hours=1)) > 0


def test_what_is_left_half_written_is_forgotten(limits: Limits) -> None:
    assert limit(limits).take()
    with Path(limits.path).open("r+b") as file:
        file.write(b'{"mail": [0, 10')

    assert limit(limits).take()
