"""Jobs that are ``.sql`` files: a header of comments, and statements."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from cronrunner.errors import JobFileError, Problem, Skip
from cronrunner.model import (
    Job,
)
from cronrunner.registry.declaration import Declaration
from cronrunner.registry.header import KEYS, RESERVED, Header, build_job, read_header
from cronrunner.sqltext import Statement, read_statements

#: What a line above a statement may say of that one.
_ABOVE: Final = re.compile(r"--\s*(counter|only)\s*:\s*(.*?)\s*$")
_KEY: Final = re.compile(r"--\s*([a-z_]+)\s*:")
#: Words for kinds of databases: MariaDB is a MySQL, and has some statements of its own.
DIALECTS: Final = ("mysql", "mariadb", "postgresql", "sqlite")
#: Header keys of a `.sql` file.
_SQL_KEYS: Final[Mapping[str, Callable[[str], Any]]] = {
    **KEYS,
    "transaction": str,
    "isolation": str,
    "effects": str,
    "counter": str,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One statement of a job."""

    statement: Statement
    #: The counter of its rows; without one they add to that of the job.
    counter: str | None = None
    #: The kinds of databases that it is for; empty for all.
    only: frozenset[str] = frozenset()

    def is_for(self, dialect: Any) -> bool:  # noqa: ANN401 - a SQLAlchemy Dialect
        """Tell whether it is for the database of a dialect."""
        names = {dialect.name}
        if dialect.name in {"mysql", "mariadb"}:
            names = {"mysql", "mariadb"} if getattr(dialect, "is_mariadb", False) else {"mysql"}
        return not self.only or not names.isdisjoint(self.only)

    def run(self, ctx: Any) -> int:  # noqa: ANN401 - a JobContext, a layer above
        """Execute the statement; return how many rows it changed, or found if they count."""
        result = ctx.execute(self.statement.pieces)
        if not result.returns_rows:
            return max(int(result.rowcount), 0)
        found = sum(1 for _ in result)
        return found if self.statement.changes or self.counter is not None else 0


@dataclass(frozen=True, slots=True)
class SqlJob:
    """The body of a ``.sql`` job: its statements in order, and the counter they add to."""

    steps: tuple[Step, ...]
    counter: str
    #: Each statement is committed by itself.
    commits: bool = False

    def __call__(self, ctx: Any) -> Mapping[str, int]:  # noqa: ANN401 - a JobContext, a layer above
        """Execute the statements with ``:now``, ``:slot``, ``:tenant`` and the options bound.

        Raises ``Skip`` when none is for this kind of database.
        """
        connection = ctx.connection
        steps = [step for step in self.steps if step.is_for(connection.dialect)]
        if not steps:
            msg = f"no statement of it is for {connection.dialect.name}"
            raise Skip(msg)
        if self.commits:
            connection.execution_options(isolation_level="AUTOCOMMIT")
        counters = dict.fromkeys((step.counter or self.counter for step in self.steps), 0)
        for step in steps:
            counters[step.counter or self.counter] += step.run(ctx)
        return counters


def load_sql(path: Path) -> Iterator[Job | Problem]:
    """Give the job of a file, or a warning why it is none.

    A file without a header may be a schema, which no run is to execute. Raises ``JobFileError``
    with all that is wrong with it.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise JobFileError([Problem(text=str(error), file=path.name)]) from error
    header = read_header(
        enumerate(content.splitlines(), start=1), file=path.name, mark="--", keys=_SQL_KEYS
    )
    if not header.is_there and not header.problems:
        text = "has no header such as `-- name: billing.remind`, and is no job"
        yield Problem(text=text, file=path.name)
        return
    counter = header.declared.pop("counter", "rows")
    if header.declared.get("transaction") == "batch":
        text = "transaction: expected tenant or none, got batch, which is for jobs in Python"
        header.complain(text, header.lines["transaction"])
    steps = tuple(_steps(content, header))
    yield build_job(
        header,
        Declaration(**header.declared, options=header.options),
        call=SqlJob(steps, counter, commits=header.declared.get("transaction") == "none"),
        path=path,
    )


def _steps(text: str, header: Header) -> Iterator[Step]:
    statements, below = read_statements(text)
    if not statements:
        header.complain("expected a SQL statement, found none")
    for statement in statements:
        _check_parameters(statement, header)
        yield _step(statement, header)
    for line, comment in below:
        if line > header.end and _ABOVE.match(comment):
            header.complain("expected a statement below this line, found none", line)


def _check_parameters(statement: Statement, header: Header) -> None:
    known = [*RESERVED, *header.options]
    for line, name in statement.parameters:
        if name not in known and name not in header.named:
            header.complain(f"unknown parameter :{name}; known are {', '.join(known)}", line)


def _step(statement: Statement, header: Header) -> Step:
    said: dict[str, str] = {}
    for line, comment in statement.above:
        if line <= header.end:
            continue
        if found := _ABOVE.match(comment):
            said[found[1]] = found[2]
            _check_above(found[1], found[2], line, header)
        elif (key := _KEY.match(comment)) and get_close_matches(key[1], ("counter", "only")):
            header.complain(f"expected counter or only above a statement, got {key[1]!r}", line)
    return Step(
        statement=statement, counter=said.get("counter"), only=frozenset(_words(said.get("only")))
    )


def _check_above(key: str, text: str, line: int, header: Header) -> None:
    if not text:
        header.complain(f"{key}: expected a name, got nothing", line)
    if key == "only" and (unknown := [each for each in _words(text) if each not in DIALECTS]):
        expected = " or ".join(DIALECTS)
        header.complain(f"only: expected {expected}, got {', '.join(unknown)!r}", line)


def _words(text: str | None) -> list[str]:
    return [part.strip().lower() for part in (text or "").split(",") if part.strip()]
