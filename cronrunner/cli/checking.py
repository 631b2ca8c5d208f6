"""``cronrunner check``: every mistake and every warning; nothing is run."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from cronrunner.app import App
from cronrunner.app.checks import find_more_errors
from cronrunner.cli import documents, rendering
from cronrunner.cli.opening import open_app, stdout_for_results
from cronrunner.config import find_config, json_schema
from cronrunner.errors import ConfigError, CronrunnerError, Problem
from cronrunner.model import ExitCode


def check_all(*, connect: bool, print_schema: bool, config: str | None, as_json: bool) -> int:
    """Check, and return 2 if there is any mistake, 4 if discovery fails, 70 if the ledger does."""
    if print_schema:
        sys.stdout.write(json_schema())
        return ExitCode.OK
    path = find_config(config, os.environ)
    failures: list[tuple[int, Problem]] = []
    try:
        with open_app(str(path), checked=False) as app:
            errors, warnings = app.check()
            if connect and not errors:
                failures = list(_connect(app, warnings))
            lines = _lines(app)
    except ConfigError as error:
        with stdout_for_results():
            more = find_more_errors(path, os.environ)
        errors = sorted(
            [*error.problems, *more],
            key=lambda each: (each.file != str(path), each.file or "", each.line or 0),
        )
        warnings, lines = [], []
    worst = max((each for each, _ in failures), default=ExitCode.OK)
    code = ExitCode.USAGE if errors else worst
    errors += [problem for _, problem in failures]
    if as_json:
        documents.write(_document(code, errors, warnings))
    else:
        _print(path, errors, warnings, lines)
    return code


def _connect(app: App, warnings: list[Problem]) -> Iterator[tuple[int, Problem]]:
    """Discover, and open the ledger: exit code and problem of what fails; warn of what is odd."""
    names: set[str] = set()
    for source in app.discover():
        if source.failure is not None:
            text = app.redactor.text(str(source.error))
            problem = Problem(text=f"server {source.server}: discovery failed: {text}")
            yield ExitCode.DISCOVERY, problem
        names |= {tenant.name for tenant in source.tenants}
        warnings += [Problem(text=f"server {source.server}: {why}") for why in source.refused]
        if (unencrypted := app.unencrypted(source.server)) is not None:
            warnings.append(Problem(text=unencrypted))
    warnings += [
        Problem(
            text=f"tenant {name!r} was not found on any server",
            file=str(app.settings.path),
            line=app.settings.line_of("tenants", name),
        )
        for name in app.unknown_tenants(names)
    ]
    try:
        with stdout_for_results():
            app.catalogue.start()
    except CronrunnerError as error:
        yield ExitCode.USAGE, Problem(text=app.redactor.text(str(error)))
    try:
        _ = app.queries
    except CronrunnerError as error:
        yield ExitCode.RUNNER, Problem(text=str(error))


def _lines(app: App) -> list[str]:
    servers = rendering.count(len(app.settings.servers), "server")
    return [f"{servers}, {rendering.count(len(app.found.jobs), 'job')}"]


def _document(code: int, errors: list[Problem], warnings: list[Problem]) -> documents.Document:
    def document(problem: Problem) -> documents.Document:
        return {"text": problem.text, "file": problem.file, "line": problem.line}

    return {
        "schema": documents.SCHEMA,
        "exit_code": code,
        "errors": [document(each) for each in errors],
        "warnings": [document(each) for each in warnings],
    }


def _print(path: Path, errors: list[Problem], warnings: list[Problem], lines: list[str]) -> None:
    out = rendering.console()
    for kind, problems in (("error", errors), ("warning", warnings)):
        for problem in problems:
            out.print(f"{kind}: {problem}", markup=False)
    for line in lines:
        out.print(line, markup=False)
    if errors:
        only_there = all(each.file == str(path) for each in errors)
        where = f"{path.name}: " if only_there else ""
        out.print(f"{where}{rendering.count(len(errors), 'mistake')}")
    else:
        out.print(f"{path.name}: no mistakes, {rendering.count(len(warnings), 'warning')}")
