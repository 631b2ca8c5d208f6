"""What every executor promises the runner. One body of tests over all of them."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from cronrunner.errors import LedgerError
from cronrunner.events import BreakerClosed, BreakerOpened, Event
from cronrunner.executors import Breakers, Executor, ThreadExecutor
from cronrunner.executors.base import Perform
from cronrunner.model import Key, Outcome, Request, Result, Tenant, VisitRequest
from tests.conformance.apart import make_apart
from tests.conformance.conftest import until

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
#: How long a server is left alone when it first refuses visits.
WAIT = timedelta(milliseconds=50)


def visit(name: str, server: str = "main", jobs: int = 1) -> VisitRequest:
    requests = tuple(
        Request(
            key=Key(job=f"job{n}", tenant=name, slot_key="s"),
            run="r",
            slot=NOON,
            attempt=1,
            fence=1,
        )
        for n in range(jobs)
    )
    return VisitRequest(tenant=Tenant(name=name, server=server, database=name), requests=requests)


def succeeded(request: Request) -> Result:
    return Result(
        request=request,
        server="main",
        outcome=Outcome.SUCCEEDED,
        started_at=NOON,
        duration_seconds=0.0,
    )


def refused(request: Request) -> Result:
    return replace(succeeded(request), outcome=Outcome.FAILED, unreached=True)


@dataclass
class Work:
    """Attempts that wait until a test lets them go on, and count who is at it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    gate: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    running: Counter[str] = field(default_factory=Counter)
    most: Counter[str] = field(default_factory=Counter)
    begun: list[Request] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    wrong: Exception | None = None
    #: Servers that refuse every session, at once.
    down: set[str] = field(default_factory=set)
    events: list[Event] = field(default_factory=list)

    def __call__(self, visit: VisitRequest) -> Iterator[Result]:
        server = visit.tenant.server
        with self.lock:
            self.running[server] += 1
            self.most[server] = max(self.most[server], self.running[server])
        try:
            for request in visit.requests:
                with self.lock:
                    self.begun.append(request)
                if server not in self.down:
                    self.gate.acquire()
                if self.wrong is not None:
                    raise self.wrong
                yield refused(request) if server in self.down else succeeded(request)
        finally:
            with self.lock:
                self.running[server] -= 1
                self.closed.append(visit.tenant.name)

    def take(self, result: Result) -> None:
        with self.lock:
            self.results.append(result)

    def let(self, attempts: int) -> None:
        self.gate.release(attempts)

    def begins(self, count: int) -> None:
        """Wait until so many attempts have begun."""
        until(lambda: len(self.begun) >= count)


Make = Callable[..., Executor]


def _breakers(permits: Mapping[str, int], emit: Callable[[Event], None]) -> Breakers:
    return Breakers(
        dict.fromkeys(permits, WAIT), rng=random.Random(1), clock=lambda: NOON, emit=emit
    )


def _threads(
    perform: Perform,
    take: Callable[[Result], None],
    concurrency: int,
    permits: Mapping[str, int],
    emit: Callable[[Event], None],
) -> Executor:
    breakers = _breakers(permits, emit)
    return ThreadExecutor(
        perform, take, concurrency=concurrency, permits=permits, breakers=breakers
    )


def _processes(
    perform: Perform,
    take: Callable[[Result], None],
    concurrency: int,
    permits: Mapping[str, int],
    emit: Callable[[Event], None],
) -> Executor:
    return make_apart(perform, take, concurrency, permits, _breakers(permits, emit))


EXECUTORS = {"threads": _threads, "processes": _processes}


@pytest.fixture(params=EXECUTORS)
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    made: list[Executor] = []
    works: list[Work] = []

    def make(work: Work, concurrency: int = 4, **permits: int) -> Executor:
        executor = EXECUTORS[request.param](
            work, work.take, concurrency, permits or {"main": concurrency}, work.events.append
        )
        made.append(executor)
        works.append(work)
        return executor

    yield make
    for work in works:
        work.let(10_000)
    for executor in made:
        executor.drain()
        executor.close()


def settle(executor: Executor) -> None:
    """Wait as the runner does."""
    for _ in range(2000):
        if executor.idle():
            return
        executor.wait(0.02)
    raise AssertionError("the executor does not come to rest")


def test_every_result_is_delivered_once(make: Make) -> None:
    work = Work()
    executor = make(work, 8)
    work.let(10_000)
    executor.submit([visit(f"t{n}", jobs=3) for n in range(200)])
    settle(executor)

    assert len(work.results) == 600
    assert len({result.request.key for result in work.results}) == 600
    assert executor.left() == ([], [])


def test_the_jobs_of_a_visit_run_in_order_and_the_visit_is_ended(make: Make) -> None:
    work = Work()
    executor = make(work)
    work.let(3)
    executor.submit([visit("acme", jobs=3)])
    settle(executor)

    assert [request.key.job for request in work.begun] == ["job0", "job1", "job2"]
    assert work.closed == ["acme"]


def test_a_server_never_has_more_visits_than_permits(make: Make) -> None:
    work = Work()
    executor = make(work, 8, small=2, big=5)
    executor.submit(
        [visit(f"{server}{n}", server) for n in range(30) for server in ("small", "big")]
    )
    work.begins(7)
    for _ in range(60):
        work.let(1)
    settle(executor)

    assert work.most == {"small": 2, "big": 5}
    assert len(work.results) == 60


def test_there_are_never_more_visits_than_the_concurrency(make: Make) -> None:
    work = Work()
    executor = make(work, 3, main=50)
    executor.submit([visit(f"t{n}") for n in range(20)])
    work.begins(3)
    work.let(10_000)
    settle(executor)

    assert work.most == {"main": 3}


def test_the_server_with_the_fewest_visits_goes_first(make: Make) -> None:
    work = Work()
    executor = make(work, 4, hanging=4, quick=4)
    executor.submit([visit(f"h{n}", "hanging") for n in range(4)])
    work.begins(4)
    executor.submit([visit(f"h{n}", "hanging") for n in range(4, 8)])
    executor.submit([visit(f"q{n}", "quick") for n in range(2)])
    work.let(2)
    work.begins(6)

    assert {request.key.tenant for request in work.begun[4:6]} == {"q0", "q1"}


def test_visits_of_a_server_begin_in_the_order_given(make: Make) -> None:
    work = Work()
    executor = make(work, 1)
    work.let(10_000)
    executor.submit([visit(f"t{n}") for n in range(20)])
    settle(executor)

    assert [request.key.tenant for request in work.begun] == [f"t{n}" for n in range(20)]


def test_after_a_drain_nothing_begins_and_what_runs_ends(make: Make) -> None:
    work = Work()
    executor = make(work, 2)
    executor.submit([visit(f"t{n}", jobs=2) for n in range(5)])
    work.begins(2)
    assert executor.queued("main") == 3
    executor.drain()
    never, begun = executor.left()
    assert len(never) == 8
    assert {request.key for request in begun} == {request.key for request in work.begun}

    work.let(10_000)
    settle(executor)
    never, begun = executor.left()
    assert len(work.begun) == len(work.results) == 2
    assert (len(never), begun) == (8, [])
    # Each visit that began was ended, though it had a job left.
    assert len(work.closed) == 2


def test_visits_that_come_after_a_drain_do_not_begin(make: Make) -> None:
    work = Work()
    executor = make(work)
    executor.drain()
    executor.submit([visit("acme")])

    assert executor.idle()
    assert [request.key.tenant for request in executor.left()[0]] == ["acme"]
    assert work.begun == []


def test_an_executor_that_nothing_was_given_to_is_idle(make: Make) -> None:
    executor = make(Work())
    executor.wait(0.01)

    assert executor.idle()
    assert executor.left() == ([], [])
    assert executor.queued("main") == 0


def test_a_visit_that_breaks_is_an_error_and_is_never_repeated(make: Make) -> None:
    work = Work(wrong=ZeroDivisionError("planted"))
    executor = make(work, 2)
    work.let(10_000)
    executor.submit([visit(f"t{n}") for n in range(50)])

    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        settle(executor)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        executor.wait(60)
    # Who was under way may have met it as well; nobody began after that.
    begun = [request.key.tenant for request in work.begun]
    assert len(begun) == len(set(begun)) <= 2


def test_a_result_that_cannot_be_taken_is_the_runners_own_error(make: Make) -> None:
    work = Work()
    work.take = _refuse  # type: ignore[method-assign]
    executor = make(work, 2)
    work.let(10_000)
    executor.submit([visit(f"t{n}") for n in range(50)])

    with pytest.raises(LedgerError, match="planted"):
        settle(executor)
    assert len(work.begun) <= 2


def _refuse(result: Result) -> None:
    raise LedgerError("planted")


def test_waiting_ends_when_more_visits_are_wanted(make: Make) -> None:
    work = Work()
    executor = make(work, 2)
    executor.submit([visit(f"t{n}") for n in range(6)])
    waiting = threading.Thread(target=executor.wait, args=(60,))
    waiting.start()
    work.let(6)
    waiting.join(20)

    assert not waiting.is_alive()


def outcomes(work: Work) -> Counter[str]:
    return Counter(f"{each.request.key.tenant[0]} {each.outcome}" for each in work.results)


def test_a_server_that_refuses_is_left_alone_and_the_others_go_on(make: Make) -> None:
    work = Work(down={"x"})
    work.let(10_000)
    executor = make(work, 2, x=1, y=1)
    executor.submit([visit(f"{server}{n}", server) for n in range(50) for server in ("x", "y")])
    settle(executor)

    # Three refused connects open the breaker, and two probes find that nothing has changed.
    assert outcomes(work) == {"y succeeded": 50, "x failed": 5, "x skipped": 45}
    assert {each.reason for each in work.results if each.outcome == "skipped"} == {"breaker open"}
    assert [each.failed_probes for each in work.events if isinstance(each, BreakerOpened)] == [
        0,
        1,
        2,
    ]


def test_all_jobs_of_a_visit_that_is_refused_are_one_refusal(make: Make) -> None:
    work = Work(down={"main"})
    work.let(10_000)
    executor = make(work, 1)
    executor.submit([visit(f"t{n}", jobs=3) for n in range(2)])
    settle(executor)

    assert outcomes(work) == {"t failed": 6}
    assert work.events == []


def test_a_server_that_is_back_when_it_is_probed_is_used_again(make: Make) -> None:
    work = Work(down={"main"})
    executor = make(work, 4)
    executor.submit([visit(f"t{n}") for n in range(20)])
    # Its first probe was refused, and nobody who began before is under way any more.
    until(lambda: len(work.events) > 1)
    work.down.clear()
    until(lambda: work.running["main"] > 0)
    # One probe, and nobody beside it.
    time.sleep(0.1)
    assert work.running["main"] == 1

    work.let(10_000)
    settle(executor)
    assert set(outcomes(work)) == {"t failed", "t succeeded"}
    assert isinstance(work.events[-1], BreakerClosed)


def test_a_probe_that_has_its_session_lets_the_others_begin_beside_it(make: Make) -> None:
    work = Work(down={"main"})
    executor = make(work, 4)
    executor.submit([visit(f"t{n}") for n in range(20)])
    # Its first probe was refused, and nobody who began before is under way any more.
    until(lambda: len(work.events) > 1)
    work.down.clear()
    until(lambda: work.running["main"] > 0)
    executor.reached(visit(work.begun[-1].key.tenant).tenant)

    until(lambda: work.running["main"] == 4)
    assert isinstance(work.events[-1], BreakerClosed)


def test_as_long_as_something_else_runs_a_server_may_come_back(make: Make) -> None:
    work = Work(down={"x"})
    executor = make(work, 2, x=1, y=1)
    executor.submit([visit("y0", "y")])
    work.begins(1)
    executor.submit([visit(f"x{n}", "x") for n in range(20)])
    until(lambda: len(work.events) > 3)
    work.down.clear()
    # When y is done the next probe is not due for long, and what the last one said is old.
    time.sleep(2 * WAIT.total_seconds())
    work.let(10_000)
    settle(executor)

    assert outcomes(work)["x skipped"] == 0
    assert outcomes(work)["x succeeded"] > 0


def test_a_repetition_that_a_refusing_server_keeps_from_being_made_has_failed(make: Make) -> None:
    work = Work(down={"main"})
    work.let(10_000)
    executor = make(work, 1)
    executor.submit([visit(f"t{n}") for n in range(6)])
    again = visit("again")
    again = replace(again, requests=(replace(again.requests[0], attempt=2),))
    started = time.monotonic()
    executor.submit([again], delay=timedelta(minutes=10))
    settle(executor)

    assert outcomes(work) == {"t failed": 5, "t skipped": 1, "a failed": 1}
    assert time.monotonic() - started < 20


def test_closing_lets_the_threads_end(make: Make) -> None:
    with _new_threads() as threads:
        executor = make(Work(), 4)
        executor.close()
        until(lambda: not threads())


@contextmanager
def _new_threads() -> Iterator[Callable[[], set[threading.Thread]]]:
    before = set(threading.enumerate())
    yield lambda: set(threading.enumerate()) - before
