"""The product's own lines: one for each event, documented, and written in order."""

import json
import re
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.contextvars import bound_contextvars

from cronrunner import events
from cronrunner.logs import LogListener, bound, flush, job_logger, listening, request_logger
from cronrunner.logs.lines import Line, line_of, request_served, uncaught
from cronrunner.model import Outcome
from tests.unit.logged import EVENTS, REPORT, REQUEST, TENANT, WORDS, Log, Make, result

DOCS = (Path(__file__).parent.parent.parent / "docs/events.md").read_text()


def test_every_event_has_a_line() -> None:
    kinds = {
        kind
        for kind in vars(events).values()
        if isinstance(kind, type) and issubclass(kind, events.Event) and kind is not events.Event
    }
    assert {type(event) for event in EVENTS} == kinds
    assert len({line_of(event).action for event in EVENTS}) == len(kinds)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_every_line_is_documented_with_its_fields(event: events.Event) -> None:
    line, name = line_of(event), type(event).__name__
    (row,) = re.findall(rf"^\| `{name}` \| `(.*?)` \| (.*?) \| (.*?) \|", DOCS, re.MULTILINE)
    action, level, fields = row
    assert action == line.action
    assert line.level in level
    assert set(re.findall("`(.*?)`", fields)) == set(line.fields)


def test_no_line_is_documented_that_does_not_exist() -> None:
    names = set(re.findall(r"^\| `([A-Z]\w+)` \|", DOCS, re.MULTILINE))
    assert names == {type(event).__name__ for event in EVENTS}


@pytest.mark.parametrize("line", [uncaught("x"), request_served("x")], ids=lambda line: line.action)
def test_the_lines_that_come_from_no_event_are_documented(line: Line) -> None:
    assert f"`{line.action}` ({line.level}" in DOCS


def test_an_event_without_a_line_is_an_error() -> None:
    with pytest.raises(NotImplementedError, match="Event"):
        line_of(events.Event())


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
@pytest.mark.parametrize("style", ["json", "console"])
def test_every_event_is_written(make_log: Make, style: str, event: events.Event) -> None:
    log = make_log(style)
    LogListener().on(event)
    line = line_of(event)
    assert line.text in log.text
    if style == "json":
        assert log.line["event"]["action"] == line.action
        assert log.line["log.level"] == line.level
        assert log.line["service"]["name"] == "cronrunner"


def test_an_execution_that_failed_is_an_error_in_the_names_of_ecs(log: Log) -> None:
    failed = result(
        Outcome.FAILED,
        error="OperationalError 1205: Lock wait timeout",
        cause="Lock wait timeout",
        code="1205",
        traceback="Traceback ...",
        counters={"flagged": 3},
    )
    LogListener().on(events.ExecutionFinished(result=failed))
    line = log.line
    del line["@timestamp"]
    assert line == {
        "log.level": "error",
        "message": "execution failed",
        "ecs.version": "1.6.0",
        "service": {"name": "cronrunner", "version": line["service"]["version"]},
        "event": {"action": "execution.finished", "outcome": "failure", "duration": 250_000_000},
        "error": {
            "type": "OperationalError",
            "message": "OperationalError 1205: Lock wait timeout",
            "code": "1205",
            "stack_trace": "Traceback ...",
        },
        "cronrunner": {
            **WORDS,
            "outcome": "failed",
            "cause": "Lock wait timeout",
            "counters": {"flagged": 3},
        },
    }


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("ValueError: no", "ValueError"),
        ("ValueError", "ValueError"),
        ("OperationalError 1205: no", "OperationalError"),
        ("OperationalError SQLITE_BUSY: no", "OperationalError"),
        ("the server said: no", None),
        ("The server said no", None),
    ],
)
def test_the_type_of_an_error_is_read_from_its_text(log: Log, error: str, kind: str) -> None:
    LogListener().on(events.ExecutionFinished(result=result(Outcome.FAILED, error=error)))
    assert log.line["error"].get("type") == kind


@pytest.mark.parametrize("outcome", Outcome)
def test_an_outcome_is_success_when_it_is_well(log: Log, outcome: Outcome) -> None:
    LogListener().on(events.ExecutionFinished(result=result(outcome, reason="why")))
    well = outcome in {Outcome.SUCCEEDED, Outcome.SKIPPED}
    assert log.line["event"]["outcome"] == ("success" if well else "failure")
    assert log.line["event"]["reason"] == "why"
    assert log.line["log.level"] == ("info" if well else "error")
    assert log.line["cronrunner"]["outcome"] == outcome


def test_lines_of_ended_executions_can_be_counted_by_outcome(make_log: Make) -> None:
    log = make_log(level="info")
    listener = LogListener()
    outcomes = [Outcome.SUCCEEDED] * 5 + [Outcome.FAILED] * 2 + [Outcome.TENANT_GONE]
    for outcome in outcomes:
        listener.on(events.ExecutionStarted(request=REQUEST, tenant=TENANT))
        with bound(REQUEST, TENANT):
            job_logger().error("execution finished", action="execution.finished")
        listener.on(events.ExecutionFinished(result=result(outcome)))
    listener.on(events.RunFinished(report=REPORT))

    ended = [
        line for line in log.lines if line.get("event", {}).get("action") == "execution.finished"
    ]
    assert Counter(line["cronrunner"]["outcome"] for line in ended) == Counter(outcomes)


def test_the_line_of_an_execution_is_before_any_later_one(log: Log) -> None:
    listener = LogListener()
    for _ in range(3):
        listener.on(events.ExecutionFinished(result=result()))
        job_logger().info("next")

    assert [json.loads(line)["message"] for line in log.written.splitlines()] == [
        "execution succeeded",
        "next",
    ] * 3


def test_lines_of_executions_are_written_in_pieces_that_a_pipe_takes_whole(
    make_log: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = make_log()
    pieces: list[str] = []
    monkeypatch.setattr(log._stream, "write", pieces.append)
    listener = LogListener()
    for _ in range(100):
        listener.on(events.ExecutionFinished(result=result()))
    flush()

    assert sum(piece.count("\n") for piece in pieces) == 100
    assert 1 < len(pieces) < 50
    assert all(len(piece) <= 4096 and piece.endswith("\n") for piece in pieces)


def test_a_stream_that_takes_nothing_holds_up_two_threads_and_no_execution(
    make_log: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = make_log()
    takes = threading.Event()
    monkeypatch.setattr(log._stream, "write", lambda _: takes.wait(30))
    listener = LogListener()
    most = 0
    for _ in range(8):
        listener.on(events.ExecutionFinished(result=result()))
        # Longer than a line waits for others.
        time.sleep(0.06)
        writers = [each for each in threading.enumerate() if each.name == "log-writer"]
        most = max(most, len(writers))
    takes.set()
    flush()

    assert 1 <= most <= 2


def test_a_line_that_cannot_be_made_is_nobody_elses_mistake(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = LogListener()
    listener.on(events.ExecutionFinished(result=result()))
    monkeypatch.setattr(listening, "line_of", lambda _: 1 / 0)
    listener.on(events.ExecutionFinished(result=result()))
    flush()
    monkeypatch.undo()
    job_logger().info("next")

    first, second, third = log.text.splitlines()
    assert json.loads(third)["message"] == "next"
    assert "cronrunner: a line could not be made: ZeroDivisionError" in {first, second}


def test_the_line_of_an_execution_comes_by_itself_and_says_when_it_ended(log: Log) -> None:
    began = datetime.now(UTC)
    for number in range(3):
        with bound_contextvars(number=number):
            LogListener().on(events.ExecutionFinished(result=result()))
        ended = datetime.now(UTC)
        deadline = time.monotonic() + 10
        while len(log.written.splitlines()) <= number:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        stamp = datetime.fromisoformat(log.lines[-1]["@timestamp"])
        assert began - timedelta(milliseconds=1) <= stamp <= ended
        assert log.lines[-1]["labels"] == {"number": number}
        began = ended


def test_starts_and_duplicates_are_not_written_at_info(make_log: Make) -> None:
    log = make_log(level="info")
    for event in EVENTS:
        LogListener().on(event)
    assert {line["event"]["action"] for line in log.lines} == {
        line_of(event).action for event in EVENTS
    } - {"execution.started", "claim.refused", "visit.finished"}


def test_requests_to_the_metrics_server_are_at_debug(log: Log) -> None:
    request_logger()("GET /metrics 200")
    assert (log.line["log.level"], log.line["event"]["action"]) == ("debug", "request.served")
