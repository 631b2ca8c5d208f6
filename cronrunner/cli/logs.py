"""``cronrunner logs summary``: what log files say of each job."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from cronrunner.cli import documents, rendering, tables
from cronrunner.logs.reading import JobLines, LogSummary, lines_of
from cronrunner.model import ExitCode

_COLUMNS = ("job", "runs", "executions", "failures", "last failed (UTC)", "tenant", "last error")


def summarize(*, paths: tuple[str, ...], as_json: bool) -> int:
    """Read the files and print what they say; one that cannot be read is named."""
    summary = LogSummary()
    code = ExitCode.OK
    for path in _files(paths):
        try:
            with _opened(path) as file:
                summary.add(lines_of(file))
        except (EOFError, OSError, zlib.error) as error:
            rendering.complain(f"{path}: it cannot be read to its end: {error}")
            code = ExitCode.USAGE
    if as_json:
        documents.write(_document(summary))
    else:
        _print(summary)
    return code


def _files(paths: Iterable[str]) -> Iterator[str]:
    """Give the files that are meant: of a folder all whose names tell of a log."""
    for path in paths:
        if path != "-" and Path(path).is_dir():
            # What begins with a dot is not complete: see the rotation of logs.
            inside = (each for each in Path(path).glob("[!.]*.log*") if each.is_file())
            yield from sorted(map(str, inside))
        else:
            yield path


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    if path == "-":
        yield sys.stdin.buffer
        return
    with Path(path).open("rb") as file:
        yield file


def _print(summary: LogSummary) -> None:
    rows = (
        (
            _shown(job),
            len(found.runs),
            found.executions,
            found.failures,
            found.last and found.last.at,
            found.last and _shown(found.last.tenant),
            found.last and _shown(found.last.text),
        )
        for job, found in sorted(summary.jobs.items())
    )
    tables.print_table(_COLUMNS, rows)
    if summary.skipped:
        rendering.complain(f"{summary.skipped} of {summary.lines} lines are no JSON: left out")


def _shown(text: str) -> str:
    """Return the first line of a text, without what drives a terminal: anybody may write a log."""
    first = text.partition("\n")[0]
    return "".join(each if each.isprintable() else " " for each in first)


def _document(summary: LogSummary) -> documents.Document:
    return {
        "lines": summary.lines,
        "skipped_lines": summary.skipped,
        "jobs": [_job(name, found) for name, found in sorted(summary.jobs.items())],
    }


def _job(name: str, found: JobLines) -> dict[str, Any]:
    last = found.last
    return {
        "job": name,
        "runs": len(found.runs),
        "executions": found.executions,
        "failures": found.failures,
        "last_failure": last
        and {
            "run": last.run,
            "tenant": last.tenant,
            "failed_at": last.at,
            "outcome": last.outcome,
            "error": last.text,
        },
    }
