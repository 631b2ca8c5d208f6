"""What a thread says that it visits next, it visits next: nobody else does meanwhile."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from cronrunner.executors import Breakers, ThreadExecutor
from cronrunner.model import Result, Tenant, VisitRequest
from tests.conformance.conftest import until
from tests.conformance.test_executors import Work, settle, visit


@dataclass
class Asking(Work):
    """Attempts that ask, once they are let go on, what their thread does next."""

    #: Tenant -> its thread, and what was said after each of its jobs.
    said: dict[str, list[str]] = field(default_factory=dict)
    there: threading.Event = field(default_factory=threading.Event)
    on: threading.Event = field(default_factory=threading.Event)
    executor: ThreadExecutor = field(init=False)

    def __call__(self, visit: VisitRequest) -> Iterator[Result]:
        name = threading.current_thread().name
        self.said[visit.tenant.name] = [name]
        for result in super().__call__(visit):
            self.said[visit.tenant.name].append(self.executor.following(visit.tenant))
            self.there.set()
            self.on.wait(10)
            yield result


Make = Callable[..., tuple[Asking, ThreadExecutor]]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[tuple[Asking, ThreadExecutor]] = []

    def make(concurrency: int, **permits: int) -> tuple[Asking, ThreadExecutor]:
        work = Asking()
        work.executor = ThreadExecutor(
            work,
            work.take,
            concurrency=concurrency,
            permits=permits or {"main": concurrency},
            breakers=Breakers({}, rng=None, clock=None, emit=work.events.append),  # type: ignore[arg-type] # no server has one
        )
        made.append((work, work.executor))
        return made[-1]

    yield make
    for work, executor in made:
        work.let(10_000)
        work.on.set()
        executor.drain()
        executor.close()


def test_what_follows_is_done_by_the_same_thread(make: Make) -> None:
    work, executor = make(4)
    work.let(10_000)
    work.on.set()
    executor.submit([visit(f"t{n}") for n in range(300)])
    settle(executor)

    said = {tenant: following for tenant, (_, following) in work.said.items() if following}
    assert len(said) > 200
    assert len(set(said.values())) == len(said)
    same = [tenant for tenant, after in said.items() if work.said[after][0] == work.said[tenant][0]]
    # Between the end of one visit and the next one somebody else may be quicker.
    assert len(same) > len(said) * 0.8


def test_it_is_said_twice_the_same(make: Make) -> None:
    work, executor = make(1)
    work.let(2)
    work.on.set()
    executor.submit([visit("a", jobs=2), visit("b"), visit("c")])
    until(lambda: len(work.said) == 2)

    assert work.said["a"][1:] == ["b", "b"]


def test_what_follows_has_not_begun(make: Make) -> None:
    work, executor = make(1)
    work.let(1)
    executor.submit([visit("a"), visit("b")])
    work.there.wait(10)

    assert not executor.idle()
    never, begun = executor.left()
    assert [request.key.tenant for request in (*never, *begun)] == ["b", "a"]
    executor.drain()
    work.on.set()
    settle(executor)
    assert [request.key.tenant for request in executor.left()[0]] == ["b"]
    assert list(work.said) == ["a"]


def test_what_follows_a_visit_that_is_stuck_is_done_by_another_thread(make: Make) -> None:
    work, executor = make(1)
    work.let(1)
    stuck = visit("a")
    executor.submit([stuck, visit("b")])
    work.there.wait(10)
    executor.abandon(stuck.requests[0])
    until(lambda: "b" in work.said)

    assert work.said["b"][0] != work.said["a"][0]


def test_a_server_with_fewer_visits_goes_first(make: Make) -> None:
    work, executor = make(2, busy=2, idle=1)
    executor.submit([visit("a", "busy"), visit("b", "busy"), visit("c", "busy")])
    until(lambda: len(work.said) == 2)
    executor.submit([visit("d", "idle")])
    work.let(1)
    work.there.wait(10)

    assert [said[1:] for said in work.said.values() if said[1:]] == [[""]]


def test_nobody_else_is_told(make: Make) -> None:
    _, executor = make(1)

    assert executor.following(Tenant(name="a", server="main", database="a")) == ""
