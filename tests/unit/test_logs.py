"""Log lines: one valid document each, with the words of its execution, and no secret."""

import io
import json
import logging
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cronrunner import events
from cronrunner.logs import LogListener, bound, configure, job_logger
from cronrunner.logs.lines import line_of
from cronrunner.logs.listening import FOR_DEBUGGING
from cronrunner.logs.rendering import LINE_LIMIT, Cleaner, Ecs
from cronrunner.model import FLEET_TENANT, Key, Outcome
from cronrunner.redaction import Redactor
from tests.unit.logged import (
    AT,
    EVENTS,
    PASSWORD,
    REQUEST,
    ROW,
    TENANT,
    WORDS,
    Log,
    Make,
    describe,
    result,
    warn,
)

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
