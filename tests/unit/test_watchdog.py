"""The stages of a deadline, and who wins at its edge."""

import threading
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest

from cronrunner.model import Killed
from cronrunner.watchdog import ServerWatch

GRACE = timedelta(seconds=0.3)


class Recorder:
    """A session that notes what is done to it; `answer` is what a cancel gives."""

    severed = Killed.SESSION

    def __init__(self, answer: bool | None = True) -> None:
        self.answer = answer
        self.done: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def cancel(self) -> bool | None:
        self.gate.wait(5)
        self.done.append("cancel")
        return self.answer

    def sever(self) -> None:
        self.done.append("sever")


class Named(Recorder):
    """A session that notes its name in a list of all."""

    def __init__(self, name: str, cancelled: list[str]) -> None:
        super().__init__()
        self.name = name
        self.cancelled = cancelled

    def cancel(self) -> bool | None:
        self.cancelled.append(self.name)
        return True


@pytest.fixture
def watch() -> Iterator[ServerWatch]:
    watch = ServerWatch("main", grace=GRACE)
    yield watch
    watch.close()


def soon(condition) -> None:
    until = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        threading.Event().wait(0.005)


def test_an_attempt_that_ends_in_time_is_left_alone(watch: ServerWatch) -> None:
    session = Recorder()
    deadline = watch.arm(timedelta(seconds=30), session, lambda: None)

    assert deadline.disarm() is False
    assert session.done == []


def test_a_statement_is_cancelled_first(watch: ServerWatch) -> None:
    session = Recorder()
    deadline = watch.arm(timedelta(milliseconds=5), session, lambda: None)
    soon(lambda: session.done)

    assert deadline.disarm() is True
    assert session.done == ["cancel"]


def test_a_server_that_cannot_be_asked_has_its_session_severed_at_once(
    watch: ServerWatch,
) -> None:
    session = Recorder(answer=None)
    deadline = watch.arm(timedelta(milliseconds=5), session, lambda: None)
    soon(lambda: len(session.done) == 2)

    assert session.done == ["cancel", "sever"]
    assert deadline.disarm() is True


def test_it_is_told_what_was_ended() -> None:
    ended: list[Killed] = []
    watch = ServerWatch("main", grace=GRACE, on_kill=ended.append)
    watch.arm(timedelta(milliseconds=1), Recorder(answer=None), lambda: None)
    soon(lambda: ended)
    # There was nothing to cancel: nothing was ended.
    watch.arm(timedelta(milliseconds=1), session := Recorder(answer=False), lambda: None).disarm()
    deadline = watch.arm(timedelta(milliseconds=1), session, lambda: None)
    soon(lambda: session.done)
    deadline.disarm()
    watch.arm(timedelta(milliseconds=1), Recorder(), lambda: None)
    soon(lambda: len(ended) == 3)
    watch.close()

    assert ended == [Killed.SESSION, Killed.STATEMENT, Killed.SESSION]


def test_what_nothing_ends_is_stuck_once(watch: ServerWatch) -> None:
    stuck: list[int] = []
    watch.arm(timedelta(milliseconds=5), None, lambda: stuck.append(1))
    soon(lambda: stuck)
    threading.Event().wait(0.05)

    assert stuck == [1]


def test_an_attempt_that_ends_waits_for_a_cancel_on_its_way(watch: ServerWatch) -> None:
    session = Recorder()
    session.gate.clear()
    deadline = watch.arm(timedelta(milliseconds=1), session, lambda: None)
    soon(lambda: deadline.expired)
    ended: list[bool] = []
    thread = threading.Thread(target=lambda: ended.append(deadline.disarm()))
    thread.start()
    threading.Event().wait(0.05)
    waited = not ended
    session.gate.set()
    thread.join(5)

    assert waited
    assert (session.done, ended) == (["cancel"], [True])


def test_deadlines_expire_in_their_own_order(watch: ServerWatch) -> None:
    done: list[str] = []
    for name, milliseconds in (("late", 60), ("early", 10), ("middle", 35)):
        watch.arm(timedelta(milliseconds=milliseconds), Named(name, done), lambda: None)
    soon(lambda: len(done) == 3)

    assert done == ["early", "middle", "late"]


def test_a_drain_lets_all_expire_and_says_so(watch: ServerWatch) -> None:
    sessions = [Recorder() for _ in range(3)]
    deadlines = [watch.arm(timedelta(hours=1), each, lambda: None) for each in sessions]
    watch.cancel_all()
    soon(lambda: all(each.done for each in sessions))

    assert all(each.drained for each in deadlines)


def test_disarmed_deadlines_do_not_pile_up(watch: ServerWatch) -> None:
    for _ in range(20_000):
        watch.arm(timedelta(hours=1), Recorder(), lambda: None).disarm()

    assert len(watch._heap) < 1000
