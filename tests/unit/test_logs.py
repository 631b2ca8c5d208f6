"""Log lines: one valid document each, with the words of its execution, and no secret."""

import gc
import io
import json
import logging
import re
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.contextvars import bound_contextvars

from cronrunner import events
from cronrunner.logs import (
    Format,
    LogListener,
    bound,
    configure,
    flush,
    job_logger,
    listening,
    request_logger,
)
from cronrunner.logs.lines import Line, line_of, request_served, uncaught
from cronrunner.logs.listening import FOR_DEBUGGING
from cronrunner.logs.rendering import LINE_LIMIT, Cleaner, Ecs
from cronrunner.model import (
    FLEET_TENANT,
    Key,
    Killed,
    Outcome,
    Report,
    Request,
    Result,
    Run,
    Shrink,
    Slot,
    Spooled,
    Tenant,
)
from cronrunner.redaction import Redactor, secret_values

DOCS = (Path(__file__).parent.parent.parent / "docs/events.md").read_text()
PASSWORD = "p4ss/w0rd!"
ROW = "row-value-4711"
TENANT = Tenant(name="acme", server="main", database="agency_acme")
AT = datetime(2026, 11, 21, tzinfo=UTC)
REQUEST = Request(
    key=Key(job="compliance.overdue", tenant="acme", slot_key="2026-11-21T00:00:00Z"),
    run="01JD8",
    slot=AT,
    attempt=2,
    fence=1,
)
WORDS = {
    "run": "01JD8",
    "job": "compliance.overdue",
    "tenant": "acme",
    "slot": "2026-11-21T00:00:00Z",
    "attempt": 2,
    "server": "main",
}
RUN = Run(
    id="01JD8",
    command="run",
    started_at=AT,
    scheduled_at=AT,
    host="h",
    boot="b",
    pid=1,
    pid_started=1,
    slot=Slot.scheduled(AT),
)
REPORT = Report(
    run=RUN,
    finished_at=AT,
    duration_seconds=1.5,
    tenants=3,
    planned=6,
    outcomes={Outcome.SUCCEEDED: 5, Outcome.FAILED: 1},
    duplicates=0,
    held=0,
    errors=(),
    causes=(),
    unwell_tenants=1,
    slowest=(),
)


def result(outcome: Outcome = Outcome.SUCCEEDED, **given: Any) -> Result:
    return Result(
        request=given.pop("request", REQUEST),
        server="main",
        outcome=outcome,
        started_at=AT,
        duration_seconds=0.25,
        **given,
    )


#: A line has all of its fields in a dry run only.
DRY_REPORT = replace(REPORT, run=replace(RUN, dry_run=True))
DRY_REQUEST = replace(REQUEST, dry_run=True)


EVENTS: tuple[events.Event, ...] = (
    events.RunStarted(run=DRY_REPORT.run, lateness=timedelta(seconds=3)),
    events.RunPlanned(run=RUN, tenants=3, executions=6, concurrency=2),
    events.RunFinished(report=DRY_REPORT),
    events.RunDraining(signal="SIGTERM", running=2),
    events.RunInterruptedFound(run="01JD7", executions=4),
    events.TenantsDiscovered(server="main", tenants=3),
    events.DiscoveryFailed(server="main", reason="unreachable", error="OperationalError 2003: no"),
    events.DiscoveryShrank(shrink=Shrink(server="main", accepted=9, found=3, missing=("a", "b"))),
    events.TenantRefused(server="main", reason="a name"),
    events.JobFileBroken(problem="jobs/x.py:3: no"),
    events.SlotsMissed(job="cleanup.rows", slots=4),
    events.ClaimRefused(key=REQUEST.key, holder="01JD7", held=True),
    events.ExecutionStarted(request=REQUEST, tenant=TENANT),
    events.ExecutionFinished(
        result=result(
            Outcome.FAILED,
            request=DRY_REQUEST,
            reason="why",
            error="ValueError: no",
            cause="no",
            code="ValueError",
            traceback="Traceback ...",
            counters={"flagged": 3},
            note="half of it",
        )
    ),
    events.AttemptFailed(
        result=result(
            Outcome.FAILED,
            request=DRY_REQUEST,
            reason="why",
            error="ValueError: no",
            cause="no",
            code="1213",
            traceback="Traceback ...",
            counters={"flagged": 3},
            note="half of it",
        ),
        delay=timedelta(seconds=2),
    ),
    events.ExecutionStuck(request=REQUEST, server="main", stack='File "jobs/x.py", line 3'),
    events.VisitFinished(tenant="acme", seconds=0.5),
    events.DeadlineEnforced(server="main", killed=Killed.STATEMENT),
    events.LedgerPruned(rows=12, before=datetime(2026, 3, 1, tzinfo=UTC)),
    events.BreakerOpened(server="main", failed_probes=1, wait=timedelta(seconds=20)),
    events.BreakerClosed(server="main"),
    events.PairQuarantined(job="compliance.overdue", tenant="acme", failures=5),
    events.PairReleased(job="compliance.overdue", tenant="acme"),
    events.Warned(subject="ledger", text="the ledger is in a container"),
    events.OutcomesSpooled(
        run="01JD7", spooled=Spooled(path="var/spool/01JD7.spool", outcomes=4, lost=1)
    ),
    events.SpoolImported(run="01JD7", outcomes=4),
    events.SinkFailed(sink="pushgateway", error="no"),
)


def describe(error: BaseException) -> str:
    """As the databases do it: no row values."""
    return f"{type(error).__name__}: {str(error).replace(ROW, '?')}"


def warn(text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(text, stacklevel=2)


class Log:
    """What was logged."""

    def __init__(self, stream: io.StringIO) -> None:
        self._stream = stream

    @property
    def text(self) -> str:
        flush()
        return self.written

    @property
    def written(self) -> str:
        return self._stream.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]

    @property
    def line(self) -> dict[str, Any]:
        (line,) = self.lines
        return line


Make = Callable[..., Log]


@pytest.fixture
def make_log() -> Iterator[Make]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook
    quiet = {name: logging.getLogger(name).level for name in ("alembic", "sqlalchemy")}

    def make(style: Format = "json", level: str = "debug", **given: Any) -> Log:
        stream = given.pop("stream", None) or io.StringIO()
        redactor = Redactor(secret_values({}, [PASSWORD]))
        configure(
            format=style, level=level, redactor=redactor, describe=describe, stream=stream, **given
        )
        return Log(stream)

    yield make
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, level in quiet.items():
        logging.getLogger(name).setLevel(level)
    sys.excepthook, sys.unraisablehook, threading.excepthook = hooks
    structlog.reset_defaults()


@pytest.fixture
def log(make_log: Make) -> Log:
    return make_log()


# What is bound


def test_every_line_inside_an_execution_has_its_words(log: Log) -> None:
    with bound(REQUEST, TENANT):
        job_logger().info("by the job", rows=3)
        logging.getLogger("some.library").warning("by a %s", "library")
        warn("by Python")

    by_job, by_library, by_python = log.lines
    assert by_job["cronrunner"] == by_library["cronrunner"] == by_python["cronrunner"] == WORDS
    assert (by_job["message"], by_job["labels"]) == ("by the job", {"rows": 3})
    assert (by_library["message"], by_library["log.level"]) == ("by a library", "warning")
    assert by_library["log"]["logger"] == "some.library"
    assert "by Python" in by_python["message"]


def test_the_words_end_with_the_execution(log: Log) -> None:
    with bound(REQUEST, TENANT):
        pass
    job_logger().info("later")
    assert "cronrunner" not in log.line


def test_the_words_of_an_outer_execution_come_back(log: Log) -> None:
    inner = replace(REQUEST, key=REQUEST.key._replace(tenant="inner"))
    with bound(REQUEST, TENANT):
        with bound(inner, TENANT):
            job_logger().info("inner")
        job_logger().info("outer")

    names = [line["cronrunner"]["tenant"] for line in log.lines]
    assert names == ["inner", REQUEST.key.tenant]


def test_what_a_job_binds_for_itself_does_not_reach_the_next_one(log: Log) -> None:
    structlog.contextvars.bind_contextvars(outer=1)
    with bound(REQUEST, TENANT):
        structlog.contextvars.bind_contextvars(customer="acme")
        job_logger().info("inside")
    job_logger().info("after")
    structlog.contextvars.clear_contextvars()

    assert [line["labels"] for line in log.lines] == [{"customer": "acme"}, {"outer": 1}]


def test_threads_do_not_see_each_others_words(log: Log) -> None:
    barrier = threading.Barrier(8)

    def work(number: int) -> None:
        key = REQUEST.key._replace(tenant=f"t{number}")
        with bound(replace(REQUEST, key=key), TENANT):
            barrier.wait()
            for _ in range(50):
                logging.getLogger("x").warning("%s", number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(log.lines) == 400
    assert all(line["cronrunner"]["tenant"] == f"t{line['message']}" for line in log.lines)


def test_the_fleet_has_an_empty_tenant(log: Log) -> None:
    with bound(replace(REQUEST, key=REQUEST.key._replace(tenant="")), FLEET_TENANT):
        job_logger().info("x")
    assert (log.line["cronrunner"]["tenant"], log.line["cronrunner"]["server"]) == ("", "")


# What authors cannot do


def test_a_job_cannot_pass_its_fields_for_the_runners(log: Log) -> None:
    fields = {"tenant": "other", "outcome": "failed", "error": "x", "labels": "y", "message": "z"}
    with bound(REQUEST, TENANT):
        job_logger().info("x", **fields, _line="not a line", **{"event.action": "run.finished"})
    line = log.line
    assert line["cronrunner"] == WORDS
    assert "event" not in line
    assert line["labels"] == {**fields, "event_action": "run.finished"}


@pytest.mark.parametrize("style", ["json", "console"])
def test_any_name_of_a_field_can_be_logged(make_log: Make, style: str) -> None:
    names = ["level", "timestamp", "stack", "exception", "log", "error", "logger", "service", "a.b"]
    log = make_log(style)
    try:
        raise ValueError("x")
    except ValueError:
        job_logger().exception("said", **dict.fromkeys(names, 5), a={"b": 1})
    assert "said" in log.text
    assert "ValueError: x" in log.text


# Each line is one document


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError


ODD = {
    "a megabyte": "x" * 1_000_000,
    "other scripts": "\U0001f600" * 100_000,
    "NUL and escapes": "a\x00b\x1b[2Jc\u2028d",
    "a lone surrogate": "a\ud800b",
    "no number": float("nan"),
    "infinity": [float("inf"), -float("inf")],
    "a huge number": 10**6000,
    "bytes": b"\xff\x00",
    "deep": [[[[[[[[1]]]]]]]],
    "wide": {f"key {number}" * 50: "v" * 500 for number in range(10_000)},
    "keys": {1: 2, None: 3, (4,): 5, "a.b": {"c": 6}, "a": 7},
    "times": {"at": AT, "for": timedelta(seconds=3), "on": AT.date()},
    "things": (Decimal("1.5"), Path("/x"), {1}, SimpleNamespace(a=1), Outcome.FAILED),
    "what cannot be written": Hostile(),
    "an exception": ValueError(f"{ROW} {PASSWORD}"),
}


@pytest.mark.parametrize("style", ["json", "console"])
@pytest.mark.parametrize("kind", ODD)
def test_any_value_makes_a_short_and_valid_line(make_log: Make, style: str, kind: str) -> None:
    log = make_log(style)
    with bound(REQUEST, TENANT):
        job_logger().error("said", value=ODD[kind])
        job_logger().error(ODD[kind])  # type: ignore[arg-type] # jobs log what they like
    for line in log.text.splitlines():
        assert len(line.encode()) < LINE_LIMIT
        assert line.isprintable()
        if style == "json":
            document = json.loads(line, parse_constant=pytest.fail)
            assert document["cronrunner"] == WORDS
    assert len(log.text.splitlines()) == 2
    assert ROW not in log.text


@pytest.mark.parametrize("text", ["x" * 1_000_000, "\U0001f600" * 500_000, "a\x00\ud800" * 9])
def test_any_text_of_an_exception_makes_a_valid_line(make_log: Make, text: str) -> None:
    log = make_log()
    try:
        raise ValueError(text)
    except ValueError:
        job_logger().exception(text)
    assert len(log.text.encode()) < LINE_LIMIT
    line = log.line
    assert line["error"]["type"] == "ValueError"
    assert line["error"]["stack_trace"].startswith("Traceback (most recent call last)")
    assert "\x00" not in line["message"]


def test_the_worst_line_is_still_short(make_log: Make) -> None:
    log = make_log()
    worst = "\U0001f600\x00\ud800" * 900
    counters = {f"{number}{worst}": number for number in range(1000)}
    texts = dict.fromkeys(["reason", "error", "cause", "code", "traceback"], worst)
    key = Key(job=worst, tenant=worst, slot_key=worst)
    finished = replace(
        result(Outcome.FAILED, counters=counters, **texts),
        request=replace(REQUEST, key=key, run=worst),
        server=worst,
    )
    labels = {f"{number}{worst}": {worst: [worst] * 9} for number in range(99)}
    structlog.contextvars.bind_contextvars(**labels)
    LogListener().on(events.ExecutionFinished(result=finished))
    structlog.contextvars.clear_contextvars()
    assert len(log.text.encode()) < LINE_LIMIT
    assert log.line["cronrunner"]["outcome"] == "failed"


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.text(),
    st.dictionaries(
        st.from_regex(r"[a-z_.]{1,9}", fullmatch=True).filter(
            lambda name: name not in {"event", "exc_info", "_line", "_logger", "self"}
        ),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        ),
    ),
)
def test_whatever_is_logged_is_valid_json(text: str, fields: dict[str, Any]) -> None:
    render = Ecs(Cleaner(Redactor([PASSWORD]), describe))
    json.loads(render(None, "info", {"event": text, **fields}), parse_constant=pytest.fail)


# Secrets and row values


@pytest.mark.parametrize("style", ["json", "console"])
def test_no_secret_and_no_row_value_is_in_any_line(make_log: Make, style: str) -> None:
    log = make_log(style)

    def fail(password: str) -> None:
        local = {"password": password}
        raise ValueError(f"Duplicate entry '{ROW}' for {local['password']}")

    try:
        fail(PASSWORD)
    except ValueError as error:
        caught = error
        job_logger().exception("failed", url=f"mysql://cron:{PASSWORD}@db", at=[PASSWORD])
        logging.getLogger("x").exception("failed with %s", PASSWORD)
        logging.getLogger("x").error("failed", exc_info=error, stack_info=True)
    job_logger().error("later", exc_info=caught, error=caught)
    logging.getLogger("x").error("a call with a wrong argument %d", PASSWORD)
    warn(PASSWORD)

    assert log.text.count("ValueError: Duplicate entry '?' for [redacted]") >= 4
    assert PASSWORD not in log.text
    assert "p4ss%2Fw0rd" not in log.text
    assert ROW not in log.text.replace("Duplicate entry '{ROW}'", "")
    assert "a log call with wrong arguments" in log.text


def test_a_password_of_one_letter_breaks_neither_the_json_nor_the_counts() -> None:
    render = Ecs(Cleaner(Redactor(["e", '"', ":"]), describe))
    line = line_of(events.ExecutionFinished(result=result()))
    document = json.loads(render(None, line.level, {"event": line.text, "_line": line}))
    assert document["message"] == "[redacted]x[redacted]cution succ[redacted][redacted]d[redacted]d"
    assert document["event"]["action"] == "execution.finished"
    assert document["cronrunner"]["outcome"] == "succeeded"


def test_exceptions_that_nothing_caught_are_written_without_locals(
    log: Log, recwarn: pytest.WarningsRecorder
) -> None:
    def fail() -> None:
        password = PASSWORD
        raise ValueError(f"{ROW} {password}")

    class Broken:
        def __del__(self) -> None:
            fail()

    thread = threading.Thread(target=fail, name="visitor 3")
    thread.start()
    thread.join()
    quiet = threading.Thread(target=sys.exit)
    quiet.start()
    quiet.join()
    Broken()
    gc.collect()
    try:
        fail()
    except ValueError as error:
        sys.excepthook(ValueError, error, error.__traceback__)

    assert [line["cronrunner"]["place"] for line in log.lines] == [
        "visitor 3",
        "a finaliser",
        "the main thread",
    ]
    for line in log.lines:
        assert line["event"]["action"] == "exception.uncaught"
        assert line["error"]["message"] == "? [redacted]"
        assert line["error"]["stack_trace"].endswith("ValueError: ? [redacted]")
    assert PASSWORD not in log.text


def test_statements_and_rows_that_sqlalchemy_logs_are_not_written(log: Log) -> None:
    logging.getLogger("sqlalchemy.engine.Engine").info("SELECT %s", ROW)
    logging.getLogger("sqlalchemy.pool").error("lost")
    assert log.line["message"] == "lost"


# The product's own lines


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


# The stream


def test_json_is_for_streams_and_the_console_for_terminals(make_log: Make) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, is_json in ((io.StringIO(), True), (Terminal(), False)):
        log = make_log("auto", stream=stream)
        job_logger().info("hello")
        assert log.text.startswith("{") is is_json


def test_without_a_stream_lines_go_where_stderr_is_at_the_time(
    make_log: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_log()
    configure(format="json", level="info", redactor=Redactor(), describe=describe)
    later = io.StringIO()
    monkeypatch.setattr(sys, "stderr", later)
    job_logger().info("hello")
    assert json.loads(later.getvalue())["message"] == "hello"


def test_a_stream_that_cannot_be_written_to_does_not_break_the_work(make_log: Make) -> None:
    class Full(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError(28, "No space left on device")

    closed = io.StringIO()
    closed.close()
    for stream in (Full(), closed):
        make_log("auto", stream=stream)
        LogListener().on(EVENTS[0])
        logging.getLogger("x").error("hello")


def test_lines_of_many_threads_are_not_mixed(make_log: Make, tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as stream:
        make_log(stream=stream)
        listener = LogListener()

        def work() -> None:
            for event in EVENTS * 20:
                listener.on(event)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == len(EVENTS) * 20 * 8


def test_logging_from_within_a_line_does_not_lock_up(make_log: Make) -> None:
    class Interrupted(io.StringIO):
        """As when a signal comes while a line is being written, and its handler logs."""

        depth = 0

        def write(self, text: str) -> int:
            self.depth += 1
            if self.depth == 1:
                job_logger().warning("from the handler")
            return super().write(text)

    log = make_log(stream=Interrupted())
    job_logger().info("interrupted")
    assert {line["message"] for line in log.lines} == {"interrupted", "from the handler"}


def test_a_process_that_dies_of_an_exception_says_so_in_one_line_and_exits_1() -> None:
    code = (
        "from cronrunner.logs import configure\n"
        "from cronrunner.redaction import Redactor\n"
        f"configure(format='auto', level='info', redactor=Redactor([{PASSWORD!r}]), describe=str)\n"
        f"password = {PASSWORD!r}\n"
        "raise ValueError(password)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert json.loads(ended.stderr)["error"]["message"] == "[redacted]"


def test_lines_that_are_not_even_made_are_those_for_debugging() -> None:
    of_debug = {type(event) for event in EVENTS if line_of(event).level == "debug"}
    assert set(FOR_DEBUGGING) == of_debug
