"""The comment at the top of a file that is a job: what a decorator says in Python."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import dropwhile
from pathlib import Path
from typing import Any, Final

from cronrunner.errors import JobFileError, Problem
from cronrunner.model import Job, Option
from cronrunner.registry.building import build
from cronrunner.registry.declaration import Declaration

_KEY: Final = re.compile(r"([a-z_]+)\s*:\s*(.*?)\s*$")
_FLAGS: Final = {"true": True, "false": False}
_OPTION: Final = re.compile(
    r"""([A-Za-z_]\w*)\s*=\s*(\[[^]]*\]|'[^']*'|"[^"]*"|[^,\s][^,]*?)\s*(?:,\s*(.*))?$"""
)
_NUMBER: Final = r"[+-]?\d+(\.\d+)?"
#: Limits of an option, and what their values look like.
_LIMITS: Final = {
    "minimum": _NUMBER,
    "maximum": _NUMBER,
    "choices": r".*\|.*",
    "environment": r"[A-Z_][A-Z0-9_]*",
}
_LIMIT: Final = re.compile(rf"({'|'.join(_LIMITS)})\s+(.+)")
#: How like a limit a word must be: `minimun` is, `minutes` is not.
_NEAR: Final = 0.75
#: What statements and scripts are told without being asked.
RESERVED: Final = ("now", "slot", "tenant")


def flag(text: str) -> bool | str:
    """Read true and false; what is neither is left to be reported."""
    return _FLAGS.get(text.lower(), text)


def names(text: str) -> list[str]:
    """Read a list separated by commas."""
    return [part.strip() for part in text.split(",")]


def count(text: str) -> int | str:
    """Read a number; what is none is left to be reported."""
    return int(text) if text.isdigit() else text


#: Header keys of every such file and how their text is read.
KEYS: Final[Mapping[str, Callable[[str], Any]]] = {
    "name": str,
    "schedule": str,
    "every": str,
    "timezone": str,
    "catch_up": str,
    "timeout": str,
    "retries": count,
    "overlap": str,
    "server_lock": flag,
    "tenants": names,
    "enabled": flag,
}


@dataclass(slots=True, kw_only=True)
class Header:
    """What the comment lines at the top of a file say."""

    file: str
    declared: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Option] = field(default_factory=dict)
    #: The options that it names, also those that are wrong.
    named: set[str] = field(default_factory=set)
    #: Key -> its line.
    lines: dict[str, int] = field(default_factory=dict)
    description: str = ""
    problems: list[Problem] = field(default_factory=list)
    #: The line of the last comment.
    end: int = 0

    @property
    def is_there(self) -> bool:
        """Tell whether it says anything of a job; other comments do not."""
        return bool(self.lines or self.named)

    def complain(self, text: str, line: int | None = None) -> None:
        """Take note of a mistake."""
        self.problems.append(Problem(text=text, file=self.file, line=line))


def build_job(
    header: Header, declaration: Declaration, *, call: Callable[[Any], Any], path: Path
) -> Job:
    """Make the job of a file. Raises ``JobFileError`` with all that is wrong with it, in order."""
    built = build(
        declaration,
        call=call,
        default_name=path.stem,
        file=path.name,
        line=1,
        description=header.description,
        lines=header.lines,
    )
    if isinstance(built, Job) and not header.problems:
        return built
    problems = [*header.problems, *([] if isinstance(built, Job) else built)]
    raise JobFileError(sorted(problems, key=lambda each: each.line or 0))


def read_header(
    numbered: Iterable[tuple[int, str]],
    *,
    file: str,
    mark: str,
    keys: Mapping[str, Callable[[str], Any]],
) -> Header:
    """Read ``key: value`` lines behind ``mark``; the other comment lines are the description.

    It begins behind blank lines and ends at the first line that is no comment. All mistakes are in
    the answer.
    """
    header = Header(file=file)
    description: list[str] = []
    for number, line in dropwhile(lambda each: not each[1].strip(), numbered):
        if not line.strip().startswith(mark):
            break
        header.end = number
        text = line.strip().removeprefix(mark).strip()
        if (said := _KEY.match(text)) is None:
            description.append(text)
        else:
            _take(header, keys, said[1], said[2], number)
    header.description = "\n".join(description).strip()
    return header


def _take(
    header: Header, keys: Mapping[str, Callable[[str], Any]], key: str, text: str, line: int
) -> None:
    if key == "option":
        _take_option(header, text, line)
    elif key not in keys:
        known = ", ".join([*keys, "option"])
        header.complain(f"unknown header key {key!r}; known are {known}", line)
    elif key in header.lines:
        header.complain(f"{key} is there twice; it was said on line {header.lines[key]}", line)
    else:
        header.lines[key] = line
        header.declared[key] = keys[key](text)


def _take_option(header: Header, text: str, line: int) -> None:
    header.named.add(text.partition("=")[0].strip())
    try:
        name, option = read_option(text)
    except ValueError as error:
        header.complain(f"option: {error}", line)
        return
    if name in header.options or name in RESERVED:
        why = "is there already" if name in header.options else "is what each statement knows"
        header.complain(f"option: {name} {why}; call it otherwise", line)
        return
    header.options[name] = option


def read_option(text: str) -> tuple[str, Option]:
    """Read ``keep_days = 30, minimum 1, for how long``. Raises ``ValueError``.

    The default's type is the option's: a number, ``true`` or ``false``, a list in brackets, or
    text, which may be quoted. Then come limits, in any order; what follows them is the help.
    """
    said = _OPTION.match(text)
    if said is None:
        msg = f"expected such as `keep_days = 30, minimum 1, what it means`, got {text!r}"
        raise ValueError(msg)
    limits: dict[str, Any] = {}
    parts = (said[3] or "").split(",")
    while parts and (limit := _LIMIT.match(parts[0].strip())):
        limits |= _limit(limit[1], limit[2].strip())
        parts.pop(0)
    for part in parts:
        _refuse_limit(part.strip())
    option = Option(_value(said[2]), help=",".join(parts).strip(), **limits)
    try:
        option.read(option.default)
    except ValueError as error:
        msg = f"{said[1]}: its default: {error}"
        raise ValueError(msg) from error
    return said[1], option


def _refuse_limit(part: str) -> None:
    """Raise ``ValueError`` for a part of the help that was meant as a limit."""
    word, _, value = part.partition(" ")
    near = get_close_matches(word.lower(), _LIMITS, n=1, cutoff=_NEAR)
    if not near or re.fullmatch(_LIMITS[near[0]], value.strip()) is None:
        return
    meant = f"{near[0]} {value.strip()}"
    msg = f"expected limits before what it means, got {part!r} in it"
    if word != near[0]:
        msg = f"unknown limit {part!r}; did you mean {meant!r}"
    raise ValueError(msg)


def _limit(word: str, text: str) -> dict[str, Any]:
    if word == "environment":
        return {word: text}
    if word == "choices":
        return {word: tuple(_value(each.strip()) for each in text.split("|"))}
    value = _value(text)
    if isinstance(value, bool) or not isinstance(value, int | float):
        msg = f"expected a number as {word}, got {text!r}"
        raise ValueError(msg)  # noqa: TRY004 - a mistake in a text
    return {word: value}


def _value(text: str) -> Any:  # noqa: ANN401 - one of the types an option may have
    """Read a default as YAML would, without its surprises: `no` is text, and so is `22:30`."""
    if text.startswith("["):
        return tuple(_value(each.strip()) for each in text[1:-1].split(",") if each.strip())
    if text[:1] in {"'", '"'}:
        return text[1:-1]
    if text in _FLAGS:
        return _FLAGS[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
