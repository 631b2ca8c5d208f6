"""How long the rest of a run takes, on fleets that are simulated: threads, jobs, and a clock."""

import heapq
import random
from collections.abc import Callable, Iterator, Sequence

import pytest

from cronrunner.estimate import Remaining
from cronrunner.model import Visit
from tests.unit.test_planning import tenant


def visit(name: str, *seconds: float | None, server: str = "main") -> Visit:
    """A visit of jobs j0, j1 and so on, of which history expects so much, or knows nothing."""
    jobs = tuple(f"j{number}" for number in range(len(seconds)))
    known = [each for each in seconds if each is not None]
    return Visit(
        tenant=tenant(name, server),
        jobs=jobs,
        expected_seconds=sum(known) if known else None,
        unknown=tuple(j for j, each in zip(jobs, seconds, strict=True) if each is None)
        if known
        else (),
    )


def remaining(visits: Sequence[Visit], concurrency: int = 2, permits: int = 100) -> Remaining:
    return Remaining(visits, concurrency=concurrency, permits=lambda server: permits)


# Before the run.


def test_the_work_is_shared_by_all_visits_that_go_on_at_once() -> None:
    visits = [visit(f"t{n}", 1.0, 2.0) for n in range(8)]

    assert remaining(visits, 4).seconds(0.0) == 6.0


def test_nothing_takes_less_time_than_the_longest_visit() -> None:
    assert remaining([visit("t0", 10.0), visit("t1", 1.0)], 2).seconds(0.0) == 10.0


def test_nothing_takes_less_time_than_the_server_with_the_least_room() -> None:
    visits = [visit("t0", 1.0), visit("t1", 1.0), visit("t2", 1.0, server="small")] + [
        visit(f"u{n}", 1.0, server="small") for n in range(3)
    ]
    by_server = Remaining(
        visits, concurrency=6, permits=lambda server: 1 if server == "small" else 6
    )

    assert by_server.seconds(0.0) == 4.0


def test_what_has_no_history_counts_as_the_mean_of_what_has() -> None:
    visits = [visit("t0", 1.0, 3.0), visit("t1", None, 2.0), visit("t2", None)]
    left = remaining(visits, 1)

    assert left.seconds(0.0) == pytest.approx(6.0 + 2 * 2.0)
    assert left.unknown == 2


def test_without_any_history_nothing_is_said_until_something_has_ended() -> None:
    left = remaining([visit(f"t{n}", None) for n in range(4)], 1)
    assert left.seconds(0.0) is None

    left.begin("t0", "j0", 0.0)
    left.end("t0", "j0", 2.0, 2.0)
    assert left.seconds(2.0) == pytest.approx(6.0)


def test_no_run_is_quicker_than_a_process_can_begin_and_record() -> None:
    visits = [visit(f"t{n}", 0.000_001) for n in range(10_000)]

    assert remaining(visits, 16).seconds(0.0) == 5.0


def test_nothing_is_left_of_no_visits() -> None:
    assert remaining([]).seconds(0.0) == 0.0


# What happens.


def test_what_goes_on_counts_for_what_it_has_done() -> None:
    left = remaining([visit("t0", 10.0)], 1)
    left.begin("t0", "j0", 100.0)

    assert left.seconds(104.0) == 6.0
    assert left.seconds(200.0) == pytest.approx(0.0, abs=0.001)


def test_a_run_that_is_slower_than_history_stays_so() -> None:
    left = remaining([visit(f"t{n}", 1.0) for n in range(10)], 1)
    for number in range(5):
        left.begin(f"t{number}", "j0", 2.0 * number)
        left.end(f"t{number}", "j0", 2.0 * number + 2.0, 2.0)

    assert left.seconds(10.0) == pytest.approx(10.0)


def test_what_passes_between_executions_counts() -> None:
    left = remaining([visit(f"t{n}", 1.0) for n in range(10)], 1)
    for number in range(5):
        left.begin(f"t{number}", "j0", 1.5 * number)
        left.end(f"t{number}", "j0", 1.5 * number + 1.0, 1.0)

    # Four gaps between five executions.
    assert left.seconds(7.0) == pytest.approx(5 * 1.4, rel=0.1)


def test_executions_of_which_nobody_says_that_they_begin_are_no_gaps() -> None:
    left = remaining([visit(f"t{n}", 1.0) for n in range(10)], 1)
    left.end("t0", "j0", 1.0, 1.0)
    for number in range(1, 5):
        left.end(f"t{number}", "j0", 1.0 + number, 1.0)

    assert left.seconds(5.0) == pytest.approx(5.0)


def test_what_is_left_out_says_nothing_of_the_others() -> None:
    left = remaining([visit(f"t{n}", 1.0) for n in range(4)], 1)
    left.end("t0", "j0", 0.0, None)
    left.end("t1", "j0", 0.0, None)

    assert left.seconds(0.0) == 2.0


def test_an_attempt_that_is_repeated_is_still_to_be_done() -> None:
    left = remaining([visit("t0", 4.0), visit("t1", 4.0)], 1)
    left.begin("t0", "j0", 0.0)
    left.put_off("t0", "j0", 4.0)
    assert left.seconds(4.0) == 8.0

    left.begin("t0", "j0", 4.0)
    left.end("t0", "j0", 8.0, 4.0)
    assert left.seconds(8.0) == pytest.approx(4.0)


def test_what_belongs_to_no_visit_is_left_out() -> None:
    left = remaining([visit("t0", 4.0)], 1)
    for name, job in (("", "j0"), ("t0", "other"), ("t9", "j0")):
        left.begin(name, job, 0.0)
        left.put_off(name, job, 0.0)
        left.end(name, job, 1.0, 1.0)

    assert left.seconds(1.0) == 4.0


# Whole runs.


def simulate(
    visits: Sequence[Visit],
    taken: dict[tuple[str, str], float],
    *,
    concurrency: int,
    gap: float,
) -> Iterator[tuple[float, float | None]]:
    """Do the visits in their order, and tell time and estimate now and then."""
    left = remaining(visits, concurrency)
    free = [(0.0, lane) for lane in range(concurrency)]
    heapq.heapify(free)
    events: list[tuple[float, int, str, str, float]] = []
    for each in visits:
        at, lane = heapq.heappop(free)
        for job in each.jobs:
            seconds = taken[each.tenant.name, job]
            events.append((at + gap, 0, each.tenant.name, job, seconds))
            at += gap + seconds
            events.append((at, 1, each.tenant.name, job, seconds))
        heapq.heappush(free, (at, lane))
    ended = 0
    for at, is_end, name, job, seconds in sorted(events):
        if is_end:
            left.end(name, job, at, seconds)
            ended += 1
            if ended % 20 == 0:
                yield at, left.seconds(at)
        else:
            left.begin(name, job, at)


def skewed(rng: random.Random) -> float:
    """Log-normal with a sigma of 1.5 and a mean of 40 ms, and no longer than two seconds.

    A run that ends with a single one is as uncertain as that one is.
    """
    return min(rng.lognormvariate(-4.344, 1.5), 2.0)


def nearly(rng: random.Random, seconds: float) -> float:
    """What another night takes."""
    return seconds * rng.lognormvariate(0.0, 0.15)


def known_fleet(rng: random.Random) -> tuple[list[Visit], dict[tuple[str, str], float]]:
    """Every job has a history."""
    expected = {f"t{n}": skewed(rng) for n in range(2000)}
    visits = [visit(name, seconds) for name, seconds in expected.items()]
    return visits, {(name, "j0"): nearly(rng, s) for name, s in expected.items()}


def slower_fleet(rng: random.Random) -> tuple[list[Visit], dict[tuple[str, str], float]]:
    """The server is half as fast as it was."""
    visits, taken = known_fleet(rng)
    return visits, {pair: seconds * 2 for pair, seconds in taken.items()}


def half_known_fleet(rng: random.Random) -> tuple[list[Visit], dict[tuple[str, str], float]]:
    """Of two jobs one is new, and a tenth of the tenants is new as well."""
    visits: list[Visit] = []
    taken: dict[tuple[str, str], float] = {}
    for number in range(1000):
        old, new = rng.uniform(0.02, 0.2), rng.uniform(0.02, 0.1)
        name = f"t{number}"
        visits.append(visit(name, old if number % 10 else None, None))
        taken |= {(name, "j0"): nearly(rng, old), (name, "j1"): new}
    return visits, taken


def wide_fleet(rng: random.Random) -> tuple[list[Visit], dict[tuple[str, str], float]]:
    """Some that are long, and very many that are next to nothing."""
    expected = {f"t{n}": 0.5 if n < 100 else 0.002 for n in range(4000)}
    visits = [visit(name, seconds) for name, seconds in expected.items()]
    return visits, {(name, "j0"): nearly(rng, s) for name, s in expected.items()}


@pytest.mark.parametrize("concurrency", [1, 8, 16])
@pytest.mark.parametrize("fleet", [known_fleet, slower_fleet, half_known_fleet, wide_fleet])
def test_from_half_of_a_run_on_the_estimate_is_within_a_fifth(
    fleet: Callable[[random.Random], tuple[list[Visit], dict[tuple[str, str], float]]],
    concurrency: int,
) -> None:
    for seed in range(5):
        visits, taken = fleet(random.Random(seed))
        visits.sort(key=lambda each: -(each.expected_seconds or 0.0))
        said = list(simulate(visits, taken, concurrency=concurrency, gap=0.001))
        end, nothing = said.pop()
        assert nothing == pytest.approx(0.0, abs=1e-6)
        for at, estimate in said:
            left = end - at
            if at >= end / 2:
                # At the very end a fifth is less than one execution takes.
                assert estimate == pytest.approx(left, rel=0.2, abs=end / 50), (seed, at, end)
