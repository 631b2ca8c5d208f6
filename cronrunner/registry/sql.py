"""Jobs that are ``.sql`` files: a header of comments, and statements."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cronrunner.errors import JobFileError, Problem
from cronrunner.model import (
    Job,
)
from cronrunner.registry.building import build
from cronrunner.registry.declaration import Declaration

_HEADER: Final = re.compile(r"--\s*([a-z_]+)\s*:\s*(.*?)\s*$")
_COMMENT: Final = re.compile(r"--(.*)$")


@dataclass(frozen=True, slots=True)
class SqlJob:
    """The body of a ``.sql`` job: its statements in order, and the counter they add to."""

    statements: tuple[str, ...]
    counter: str

    def __call__(self, ctx: Any) -> Mapping[str, int]:  # noqa: ANN401 - a JobContext, a layer above
        """Execute the statements with ``:now``, ``:slot``, ``:tenant`` and the options bound."""
        affected = [ctx.execute(statement).rowcount for statement in self.statements]
        return {self.counter: sum(count for count in affected if count > 0)}


_FLAGS: Final = {"true": True, "false": False}


def _flag(text: str) -> bool | str:
    return _FLAGS.get(text.lower(), text)


#: Header keys of a `.sql` file and how their text is read.
_SQL_KEYS: Final[Mapping[str, Callable[[str], Any]]] = {
    "name": str,
    "schedule": str,
    "every": str,
    "timezone": str,
    "catch_up": str,
    "timeout": str,
    "retries": lambda text: int(text) if text.isdigit() else text,
    "transaction": str,
    "overlap": str,
    "server_lock": _flag,
    "isolation": str,
    "tenants": lambda text: [part.strip() for part in text.split(",")],
    "external_effects": _flag,
    "enabled": _flag,
}


def load_sql(path: Path) -> Iterator[Job]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise JobFileError([Problem(text=str(error), file=path.name)]) from error
    declared, description, problems = _read_header(text, path.name)
    counter = declared.pop("counter", "rows")
    statements = _split(text)
    if not statements:
        problems.append(Problem(text="expected a SQL statement, found none", file=path.name))
    built = build(
        Declaration(**declared),
        call=SqlJob(statements, counter),
        default_name=path.stem,
        file=path.name,
        line=1,
        description=description,
    )
    if isinstance(built, Job) and not problems:
        yield built
        return
    raise JobFileError([*problems, *([] if isinstance(built, Job) else built)])


def _read_header(text: str, file: str) -> tuple[dict[str, Any], str, list[Problem]]:
    """Read ``-- key: value`` lines; the other comment lines at the top are the description."""
    declared: dict[str, Any] = {}
    description: list[str] = []
    problems: list[Problem] = []
    for number, line in enumerate(text.splitlines(), start=1):
        comment = _COMMENT.match(line.strip())
        if comment is None:
            break
        key_value = _HEADER.match(line.strip())
        if key_value is None:
            description.append(comment.group(1).strip())
        elif key_value.group(1) == "counter":
            declared["counter"] = key_value.group(2)
        elif key_value.group(1) in _SQL_KEYS:
            declared[key_value.group(1)] = _SQL_KEYS[key_value.group(1)](key_value.group(2))
        else:
            problems.append(_unknown_key(key_value.group(1), file, number))
    return declared, "\n".join(description).strip(), problems


def _unknown_key(key: str, file: str, line: int) -> Problem:
    known = ", ".join([*_SQL_KEYS, "counter"])
    return Problem(text=f"unknown header key {key!r}; known are {known}", file=file, line=line)


def _split(text: str) -> tuple[str, ...]:
    """Split a file into statements; sqlparse knows strings, comments and BEGIN blocks."""
    import sqlparse  # noqa: PLC0415 - only a folder with .sql jobs pays for it

    stripped = (sqlparse.format(each, strip_comments=True) for each in sqlparse.split(text))
    return tuple(each.strip().rstrip(";").strip() for each in stripped if each.strip(" ;\n\t"))
