"""Reads log files of JSON again: what they say of each job."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final

from cronrunner.model import WELL

_GZIP: Final = b"\x1f\x8b"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An execution that did not go well."""

    at: datetime
    run: str
    #: Empty for the fleet.
    tenant: str
    outcome: str
    #: What it failed with, or why it was ended.
    text: str


@dataclass(slots=True, kw_only=True)
class JobLines:
    """What the lines say of one job."""

    runs: set[str] = field(default_factory=set)
    executions: int = 0
    failures: int = 0
    last: Failure | None = None


class LogSummary:
    """The executions of log files by job; dry runs are none."""

    def __init__(self) -> None:
        self.jobs: dict[str, JobLines] = {}
        #: Lines with something on them.
        self.lines = 0
        #: Those of them that are no JSON.
        self.skipped = 0

    def add(self, lines: Iterable[bytes]) -> None:
        """Take up lines, in whatever order of time they are."""
        for line in filter(bytes.strip, lines):
            self.lines += 1
            try:
                document = _read(line)
            except (ValueError, RecursionError):  # what is nested too deeply is no line of ours
                self.skipped += 1
            else:
                self._take_up(document)

    def _take_up(self, document: Any) -> None:  # noqa: ANN401 - JSON
        match document:
            case {
                "event": {"action": "execution.finished"},
                "cronrunner": {"job": str(job), "run": str(run), "outcome": str(outcome), **words},
            } if not words.get("dry_run"):
                lines = self.jobs.setdefault(job, JobLines())
                lines.runs.add(run)
                lines.executions += 1
                if outcome not in WELL:
                    lines.failures += 1
                    lines.last = _later(lines.last, _failure(document))


def _read(line: bytes) -> Any:  # noqa: ANN401 - JSON
    document = json.loads(line)
    if b"\\ud" in line.lower():
        # Half of a surrogate pair is no text that could be shown.
        return json.loads(json.dumps(document, ensure_ascii=False).encode(errors="replace"))
    return document


def _failure(document: Mapping[str, Any]) -> Failure | None:
    """Return what a line says of a failure; nothing if nobody knows when that was."""
    words = document["cronrunner"]
    try:
        at = datetime.fromisoformat(document["@timestamp"]).astimezone(UTC)
    except (KeyError, TypeError, ValueError, OverflowError):
        # The last for a moment of year 1 or 9999 that lies beyond them in UTC.
        return None
    return Failure(
        at=at,
        run=words["run"],
        tenant=str(words.get("tenant", "")),
        outcome=words["outcome"],
        text=_text(document) or words["outcome"],
    )


def _later(one: Failure | None, other: Failure | None) -> Failure | None:
    """Return the later of two failures, the second if they are of the same moment."""
    if one is None or other is None:
        return one or other
    return max(other, one, key=lambda failure: failure.at)


def _text(document: Mapping[str, Any]) -> str | None:
    """Return what a line says about the failure."""
    match document:
        case {"error": {"message": str(text)}} | {"event": {"reason": str(text)}}:
            return text
    return None


def lines_of(file: BinaryIO) -> Iterator[bytes]:
    """Read the lines of a file, also of one that is compressed by gzip.

    Raises ``EOFError``, ``OSError`` and ``zlib.error`` when it is damaged.
    """
    is_packed = _peek(file) == _GZIP
    with gzip.open(file) if is_packed else nullcontext(file) as opened:
        yield from opened


def _peek(file: Any) -> bytes:  # noqa: ANN401 - a BufferedReader
    return bytes(file.peek(len(_GZIP))[: len(_GZIP)])
