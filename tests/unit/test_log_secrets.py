"""No secret and no row value is in any line."""

import gc
import json
import logging
import sys
import threading

import pytest

from cronrunner import events
from cronrunner.logs import job_logger
from cronrunner.logs.lines import line_of
from cronrunner.logs.rendering import Cleaner, Ecs
from cronrunner.redaction import Redactor
from tests.unit.logged import PASSWORD, ROW, Log, Make, describe, result, warn


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
