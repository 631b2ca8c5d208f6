"""Events reach every listener, and no listener can break the work."""

import threading
from dataclasses import FrozenInstanceError, is_dataclass
from typing import ClassVar

import pytest

from cronrunner import events
from cronrunner.events import Dispatcher, Event, SinkFailed, TenantsDiscovered, Warned


class Noting:
    def __init__(self) -> None:
        self.seen: list[Event] = []

    def on(self, event: Event) -> None:
        self.seen.append(event)


class Breaking:
    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.calls = 0

    def on(self, event: Event) -> None:
        self.calls += 1
        raise self.error


FOUND = TenantsDiscovered(server="main", tenants=3)
WARNED = Warned(subject="tls", text="plain")


def test_every_listener_gets_every_event_in_order() -> None:
    first, second = Noting(), Noting()
    dispatcher = Dispatcher([first, second])
    for event in (FOUND, WARNED, FOUND):
        dispatcher.emit(event)

    assert first.seen == second.seen == [FOUND, WARNED, FOUND]


def test_a_failing_listener_keeps_nothing_from_the_others_and_is_reported_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    breaking, noting = Breaking(RuntimeError("hunter2")), Noting()
    dispatcher = Dispatcher([breaking, noting])
    for _ in range(3):
        dispatcher.emit(FOUND)

    assert noting.seen == [FOUND] * 3
    assert breaking.calls == 3
    # Only the type: a message may hold anything.
    assert capsys.readouterr().err == "cronrunner: listener Breaking failed: RuntimeError\n"


def test_a_choosy_listener_gets_what_it_hears_and_is_asked_once_for_each_kind() -> None:
    class Choosy(Noting):
        asked: ClassVar[list[type[Event]]] = []

        def hears(self, kind: type[Event]) -> bool:
            self.asked.append(kind)
            return kind is Warned

    choosy, noting = Choosy(), Noting()
    dispatcher = Dispatcher([choosy, noting])
    for event in (FOUND, WARNED, FOUND, WARNED):
        dispatcher.emit(event)

    assert choosy.seen == [WARNED, WARNED]
    assert noting.seen == [FOUND, WARNED, FOUND, WARNED]
    assert choosy.asked == [TenantsDiscovered, Warned]


def test_an_interrupt_in_a_listener_is_not_swallowed() -> None:
    with pytest.raises(KeyboardInterrupt):
        Dispatcher([Breaking(KeyboardInterrupt())]).emit(FOUND)


def test_events_of_several_threads_all_arrive() -> None:
    noting = Noting()
    dispatcher = Dispatcher([noting])

    def emit() -> None:
        for _ in range(200):
            dispatcher.emit(FOUND)

    threads = [threading.Thread(target=emit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(noting.seen) == 1600


@pytest.mark.parametrize(
    "kind", [each for each in vars(events).values() if isinstance(each, type)
             and issubclass(each, Event)]
)  # fmt: skip
def test_an_event_is_a_frozen_value_that_says_when_it_happens(kind: type[Event]) -> None:
    assert is_dataclass(kind)
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert kind.__doc__
    assert not kind.__doc__.startswith(f"{kind.__name__}(")


def test_an_event_cannot_be_changed() -> None:
    event = SinkFailed(sink="textfile", error="disk full")

    with pytest.raises(FrozenInstanceError):
        event.error = "none"  # type: ignore[misc]
