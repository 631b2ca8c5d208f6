"""What log files say of each job."""

import gzip
import json
from datetime import UTC, datetime
from io import BufferedReader, BytesIO
from typing import Any

import pytest

from cronrunner.logs.reading import LogSummary, lines_of
from cronrunner.model import WELL, Outcome


def line(
    second: int = 0,
    outcome: str = "failed",
    error: str | None = "ValueError: planted",
    event: dict[str, Any] | None = None,
    **words: Any,
) -> bytes:
    """Write the line of an execution as the log does."""
    document = {
        "@timestamp": f"2026-03-01T00:00:{second:02}.204Z",
        "event": {"action": "execution.finished", **(event or {})},
        "cronrunner": {"job": "a.b", "run": "r1", "tenant": "acme", "outcome": outcome, **words},
    }
    return json.dumps(document | ({"error": {"message": error}} if error else {})).encode() + b"\n"


def summary(*lines: bytes) -> LogSummary:
    made = LogSummary()
    made.add(lines)
    return made


def test_each_job_has_its_runs_executions_and_failures() -> None:
    found = summary(
        line(run="r1", outcome="succeeded"), line(run="r1"), line(run="r2"), line(job="c.d"),
    ).jobs  # fmt: skip

    assert {
        job: (len(each.runs), each.executions, each.failures) for job, each in found.items()
    } == {
        "a.b": (2, 3, 2),
        "c.d": (1, 1, 1),
    }


@pytest.mark.parametrize("outcome", Outcome)
def test_a_failure_is_what_did_not_go_well(outcome) -> None:
    assert summary(line(outcome=outcome)).jobs["a.b"].failures == (outcome not in WELL)


@pytest.mark.parametrize("order", [(3, 7, 5), (7, 3, 5), (3, 5, 7)])
def test_the_last_failure_is_the_latest_whatever_the_order_of_lines(order) -> None:
    lines = [line(second, error=f"E{second}", tenant=f"t{second}") for second in order]
    last = summary(*lines, line(9, outcome="succeeded")).jobs["a.b"].last

    assert last is not None
    assert (last.text, last.tenant, last.run) == ("E7", "t7", "r1")
    assert last.at == datetime(2026, 3, 1, 0, 0, 7, 204000, tzinfo=UTC)


def test_what_has_no_error_is_told_by_its_reason_or_outcome() -> None:
    interrupted = line(error=None, outcome="interrupted", event={"reason": "its run died"})
    last = summary(interrupted).jobs["a.b"].last
    assert last is not None
    assert last.text == "its run died"

    last = summary(line(error=None, outcome="stuck")).jobs["a.b"].last
    assert last is not None
    assert last.text == "stuck"


def test_lines_that_are_no_json_are_counted_and_empty_ones_are_not() -> None:
    found = summary(
        b"Traceback (most recent call last):\n", b"\n", b"  \n", b"\xff\xfe\n", b"[" * 100_000,
        line()[:-9], line(),
    )  # fmt: skip

    assert (found.lines, found.skipped) == (5, 4)
    assert found.jobs["a.b"].executions == 1


@pytest.mark.parametrize(
    "other",
    [
        b"3",
        b"[]",
        b'{"event": "execution.finished"}',
        b'{"message": "hello", "labels": {"event": {"action": "execution.finished"}}}',
        line(event={"action": "attempt.failed"}),
        line(dry_run=True),
        line(job=None),
    ],
)
def test_lines_that_tell_of_no_execution_are_neither_counted_nor_skipped(other) -> None:
    found = summary(other)

    assert (found.lines, found.skipped, found.jobs) == (1, 0, {})


@pytest.mark.parametrize("time", ["yesterday", None, 3])
def test_a_failure_of_which_nobody_knows_when_it_was_is_never_the_last(time) -> None:
    document = json.loads(line(1, error="timeless"))
    found = summary(line(0), json.dumps(document | {"@timestamp": time}).encode()).jobs["a.b"]

    assert found.failures == 2
    assert found.last is not None
    assert found.last.text == "ValueError: planted"


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_file_is_read_whether_it_is_compressed_or_not(pack) -> None:
    content = line(1) + line(2)

    file = BufferedReader(BytesIO(pack(content)))
    assert b"".join(lines_of(file)) == content


def test_an_empty_file_has_no_lines() -> None:
    assert list(lines_of(BufferedReader(BytesIO()))) == []


def test_what_is_damaged_gives_its_beginning_and_then_an_error() -> None:
    packed = gzip.compress(b"".join(line(n % 60, run=str(n)) for n in range(10_000)))
    made = LogSummary()

    with pytest.raises(EOFError):
        made.add(lines_of(BufferedReader(BytesIO(packed[:-20]))))
    assert 0 < made.lines <= 10_000


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_a_moment_beyond_all_years_is_none(at: str) -> None:
    document = json.loads(line()) | {"@timestamp": at}
    found = summary(json.dumps(document).encode(), line(3)).jobs["a.b"]

    assert (found.failures, found.last and found.last.at.second) == (2, 3)


def test_what_is_no_text_becomes_one() -> None:
    (name,) = summary(line(job="\ud800b")).jobs

    assert name == "?b"
    assert set(summary(line(job="\U0001f381")).jobs) == {"\U0001f381"}
