"""``cronrunner sql``: a statement of the moment on many tenants, and one table of what they say."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

import click

from cronrunner import planning
from cronrunner.app import App
from cronrunner.app.querying import Answer, Question, ask, united
from cronrunner.cli import documents, rendering
from cronrunner.cli.choosing import discover, selection_of
from cronrunner.cli.opening import begin_tidying, open_app
from cronrunner.cli.tables import SHOWN, print_table
from cronrunner.databases.reading import reads
from cronrunner.errors import ConfigError, Problem
from cronrunner.model import ExitCode, Tenant
from cronrunner.sqltext import Statement, read_statements

#: Parameters that a statement of the moment knows.
_KNOWN: Final = ("now", "slot", "tenant")
#: Tenants that a note names.
_NAMED: Final = 3


def ask_tenants(  # noqa: PLR0913 - the command's options
    *,
    statement: str,
    timeout: timedelta,
    limit: int,
    write: bool,
    yes: bool,
    concurrency: int | None,
    config: str | None,
    as_json: bool,
    as_csv: bool,
    **asked: Any,  # noqa: ANN401 - the options that choose tenants
) -> int:
    """Ask, print one table, and return 1 if a tenant failed, 4 if discovery did."""
    selection = selection_of(asked)
    if as_json and as_csv:
        raise _mistake("expected --json or --csv, got both")
    parsed = _one(statement, write=write)
    question = Question(statement=parsed.pieces, timeout=timeout, limit=limit, writes=write)
    with open_app(config) as app:
        tenants, code = discover(app, selection, compared=False)
        chosen = planning.select_tenants(tenants, selection)
        if write and not yes and not _is_agreed(parsed, chosen):
            rendering.complain("nothing was changed")
            return ExitCode.NOT_WELL
        begin_tidying()
        answers = ask(app, chosen, question, concurrency=concurrency)
        failed = [each for each in answers if each.error is not None]
        code = code or (ExitCode.NOT_WELL if failed else ExitCode.OK)
        _print(app, answers, code, as_json=as_json, as_csv=as_csv)
    for each in failed:
        rendering.complain(f"{each.tenant.name}: {each.error}")
    _tell_cut([each.tenant.name for each in answers if each.is_cut], limit)
    return code


def _mistake(text: str) -> ConfigError:
    return ConfigError([Problem(text=text)])


def _one(text: str, *, write: bool) -> Statement:
    """Return the one statement of a text. Raises ``ConfigError`` for what is not asked."""
    statements, _ = read_statements(text)
    if len(statements) != 1:
        raise _mistake(f"expected one statement, got {len(statements)}")
    (found,) = statements
    unknown = [name for _, name in found.parameters if name not in _KNOWN]
    if unknown:
        raise _mistake(f"unknown parameter :{unknown[0]}; known are {', '.join(_KNOWN)}")
    if not write and not reads(found.text):
        words = " ".join(found.text.split()[:2])
        raise _mistake(f"expected a statement that reads, got {words}; --write allows changes")
    return found


def _is_agreed(statement: Statement, tenants: Sequence[Tenant]) -> bool:
    """Ask whether so many tenants are to be changed."""
    number = rendering.count(len(tenants), "tenant")
    if not sys.stdin.isatty():
        raise _mistake(f"this would change {number}, and nobody can be asked; --yes agrees")
    first = ", ".join(tenant.name for tenant in tenants[:_NAMED])
    click.echo(f"{' '.join(statement.text.split())}", err=True)
    more = ", ..." if len(tenants) > _NAMED else ""
    return click.confirm(f"Do this on {number} ({first}{more})?", err=True)


def _print(app: App, answers: Sequence[Answer], code: int, *, as_json: bool, as_csv: bool) -> None:
    columns, rows = united(answers)
    # What a database holds may be what is a secret here.
    cells = [tuple(app.redactor.value(_plain(value)) for value in row) for row in rows]
    if as_json:
        documents.write(_document(columns, cells, answers, code))
    elif as_csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(columns)
        writer.writerows(cells)
    elif len(columns) > 1:
        print_table(columns, cells, most=SHOWN)


def _plain(value: Any) -> Any:  # noqa: ANN401 - a driver's value
    """Write bytes as text, or as digits if they are none."""
    if not isinstance(value, bytes | bytearray | memoryview):
        return value
    raw = bytes(value)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return f"0x{raw.hex()}"


def _document(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    answers: Sequence[Answer],
    code: int,
) -> documents.Document:
    return {
        "schema": documents.SCHEMA,
        "exit_code": code,
        "tenants": len(answers),
        "columns": list(columns),
        "rows": [dict(zip(columns, row, strict=True)) for row in rows],
        "cut": [each.tenant.name for each in answers if each.is_cut],
        "errors": [
            {"tenant": each.tenant.name, "error": each.error}
            for each in answers
            if each.error is not None
        ],
    }


def _tell_cut(names: Sequence[str], limit: int) -> None:
    if not names:
        return
    named = ", ".join(names[:_NAMED])
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    rendering.complain(f"only the first {limit:,} rows are shown of {named}{more}; see --limit")
