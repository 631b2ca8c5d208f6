"""What an author says of a job: the parts of its docstring, or of the comment of its file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from cronrunner.model import EMPTY

_COUNTERS: Final = "Counters:"
_FROM: Final = "From:"
_COUNTER: Final = re.compile(r"\s*(\w+):\s+(.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """The parts of a description."""

    #: The first line.
    summary: str = ""
    #: What comes after it: paragraphs, lists and tables as in Markdown.
    body: str = ""
    #: What each counter counts.
    counters: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    #: Where the job comes from; empty if it does not say.
    origin: str = ""


def read_description(text: str) -> Description:
    """Take a description apart.

    ``Counters:`` begins a section of indented lines ``name: meaning``, which go on in lines that
    are indented more; on one line they stand behind it, separated by semicolons. A line
    ``From: ...`` says where the job comes from.
    """
    lines = text.splitlines()
    body: list[str] = []
    counters: list[str] = []
    origin = ""
    while lines:
        line = lines.pop(0)
        if line.startswith(_FROM):
            origin = line.removeprefix(_FROM).strip()
        elif line.startswith(_COUNTERS):
            counters += line.removeprefix(_COUNTERS).split(";")
            counters += _indented(lines)
        else:
            body.append(line)
    summary, *rest = body or [""]
    return Description(
        summary=_as_markdown(summary),
        body=_as_markdown("\n".join(rest).strip()),
        counters=dict(_named(counters)),
        origin=origin,
    )


def _as_markdown(text: str) -> str:
    return re.sub(r"``(.+?)``", r"`\1`", text)


def _indented(lines: list[str]) -> Iterator[str]:
    """Take the indented lines from the front; one that is indented more goes on the one before."""
    taken: list[str] = []
    while lines and lines[0].startswith(" "):
        taken.append(lines.pop(0))
    indent = min((len(line) - len(line.lstrip()) for line in taken), default=0)
    joined: list[str] = []
    for line in taken:
        if line[indent] == " " and joined:
            joined[-1] += f" {line.strip()}"
        else:
            joined.append(line)
    yield from joined


def _named(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        if found := _COUNTER.fullmatch(line):
            yield found[1], found[2]
