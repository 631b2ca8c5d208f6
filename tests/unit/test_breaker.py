"""When visits of a server wait, told by times that a test sets."""

import random
from datetime import timedelta

import pytest

from cronrunner.breaker import FAILURES, PROBES, Breaker

WAIT = timedelta(seconds=10)


def closed(seed: int = 1) -> Breaker:
    return Breaker(WAIT, random.Random(seed))


def opened(seed: int = 1) -> Breaker:
    """Open a breaker at time 0."""
    breaker = closed(seed)
    for number in range(FAILURES):
        breaker.refused(f"t{number}", 0.0)
    return breaker


def probe(breaker: Breaker, tenant: str = "probe") -> float:
    """Begin the probe as soon as it may, and return when that was."""
    due = breaker.due
    assert due is not None
    assert breaker.admits(due)
    breaker.begin(tenant)
    return due


def test_it_opens_at_so_many_refusals_in_a_row() -> None:
    breaker = closed()
    waits = [breaker.refused(f"t{number}", 0.0) for number in range(FAILURES)]

    assert waits[:-1] == [None] * (FAILURES - 1)
    assert waits[-1] is not None
    assert breaker.is_open
    assert not breaker.admits(0.0)


def test_a_session_between_refusals_begins_the_row_again() -> None:
    breaker = closed()
    for number in range(3 * FAILURES):
        breaker.refused("bad", 0.0)
        if number % 2:
            breaker.reached("good")

    assert not breaker.is_open


@pytest.mark.parametrize("seed", range(20))
def test_the_first_wait_is_about_the_one_given_and_never_shorter(seed: int) -> None:
    due = opened(seed).due

    assert due is not None
    assert 10 <= due <= 12.5


def test_when_the_wait_is_over_one_visit_is_let_through() -> None:
    breaker = opened()
    now = probe(breaker)

    assert not breaker.admits(now)
    assert breaker.due is None


def test_a_probe_that_is_refused_opens_it_for_longer() -> None:
    breaker = opened()
    first = probe(breaker)
    wait = breaker.refused("probe", first)

    assert wait is not None
    assert timedelta(seconds=20) <= wait <= timedelta(seconds=25)
    assert not breaker.admits(first + 19)
    assert breaker.failed_probes == 1


def test_a_probe_that_has_its_session_closes_it_and_forgets_everything() -> None:
    breaker = opened()
    breaker.refused("probe", probe(breaker))
    probe(breaker)

    assert breaker.reached("probe")
    assert breaker.is_quiet
    assert breaker.failed_probes == 0
    assert breaker.admits(0.0)


def test_what_began_before_it_opened_neither_closes_it_nor_makes_it_wait_longer() -> None:
    breaker = opened()
    due = breaker.due
    assert not breaker.reached("early")
    assert breaker.refused("early", 5.0) is None

    assert breaker.due == due
    probe(breaker)
    assert breaker.refused("early", 15.0) is None
    assert not breaker.reached("early")
    assert breaker.due is None


def hopeless() -> tuple[Breaker, float]:
    """Return a breaker whose probes were refused, and when the last one was."""
    breaker, now = opened(), 0.0
    for _ in range(PROBES):
        assert not breaker.is_hopeless(now)
        now = probe(breaker)
        breaker.refused("probe", now)
    return breaker, now


def test_it_is_hopeless_when_so_many_probes_were_refused() -> None:
    breaker, now = hopeless()

    assert breaker.is_hopeless(now)
    assert not breaker.admits(now + 9)


def test_who_has_nothing_else_to_wait_for_gets_another_probe_if_the_last_is_old() -> None:
    breaker, now = hopeless()

    assert not breaker.is_hopeless(now + 11)
    assert breaker.admits(now + 11)
    breaker.begin("last")
    breaker.refused("last", now + 12)
    assert breaker.is_hopeless(now + 12)


def test_a_sign_of_life_gives_hope() -> None:
    breaker, now = hopeless()
    breaker.lives()

    assert not breaker.is_hopeless(now)


def test_a_probe_that_ended_without_a_word_leaves_its_place_to_another() -> None:
    breaker = opened()
    now = probe(breaker)
    breaker.ended("early")
    assert not breaker.admits(now)
    breaker.ended("probe")

    assert breaker.admits(now)


def test_a_wait_has_a_limit() -> None:
    breaker = opened()
    wait = timedelta()
    for _ in range(20):
        wait = breaker.refused("probe", probe(breaker)) or timedelta()

    assert timedelta(minutes=5) <= wait <= timedelta(minutes=6.25)
