"""``cronrunner run``: signals, progress, the run itself, and what is printed at the end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from datetime import datetime, timedelta
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

from cronrunner import logs
from cronrunner.app import App
from cronrunner.app.run_options import RunOptions
from cronrunner.app.starting import start_run
from cronrunner.cli import documents, rendering
from cronrunner.cli.commands import COMMANDS
from cronrunner.cli.dry import Changes, print_changes
from cronrunner.cli.opening import begin_tidying, open_app, stdout_for_results
from cronrunner.errors import ConfigError, LedgerError
from cronrunner.events import Event, ExecutionFinished, ExecutionStarted, Listener, RunPlanned
from cronrunner.ledger import ExecutionFilter
from cronrunner.model import ExitCode, Report
from cronrunner.planning import Selection
from cronrunner.runner import FailureLimit, RunLost, Runner

if TYPE_CHECKING:
    from cronrunner.cli.progress import Progress


def run_now(  # noqa: PLR0913 - the command's options
    *,
    jobs: tuple[str, ...],
    tenants: tuple[str, ...],
    excluded: tuple[str, ...],
    labels: tuple[tuple[str, str], ...],
    servers: tuple[str, ...],
    shard: tuple[int, int] | None,
    scheduled_at: datetime | None,
    accept_shrink: bool,
    deadline: timedelta | None,
    max_failures: tuple[int | None, float | None] | None,
    canary: int,
    concurrency: int | None,
    metrics_port: int | None,
    config: str | None,
    as_json: bool,
    due: bool = False,
    dry_run: bool = False,
    again: bool = False,
    resume: str | None = None,
    only_failed: str | None = None,
    values: tuple[tuple[str, str], ...] = (),
    alert: bool = False,
) -> int:
    """Run, print the summary or the document, and return the exit code."""
    selection = Selection(
        jobs=jobs,
        tenants=tenants,
        exclude_tenants=excluded,
        labels=dict(labels),
        servers=servers,
        shard=shard,
    )
    options = RunOptions(
        command=_command(),
        due=due,
        scheduled_at=scheduled_at,
        concurrency=concurrency,
        dry_run=dry_run,
        again=again,
        resume=resume,
        only_failed=only_failed,
        accept_shrink=accept_shrink,
        deadline=deadline,
        max_failures=_limit(max_failures),
        canary=canary,
        metrics_port=metrics_port,
        options=values,
        alert=alert,
        watched=sys.stderr.isatty(),
    )
    changes = Changes() if dry_run else None
    with open_app(config, checked=False) as app:
        try:
            report = _run(app, selection, options, changes)
        except ConfigError as error:
            texts = [str(problem) for problem in error.problems]
            texts += _misplaced(texts, sys.argv[1:])
            return _refused(options, texts, ExitCode.USAGE, as_json=as_json)
        except RunLost as lost:
            rendering.complain(str(lost))
            _print(lost.report, changes, [], due=due, as_json=as_json)
            return ExitCode.RUNNER
        except LedgerError as error:
            return _refused(options, [str(error)], ExitCode.RUNNER, as_json=as_json)
        except Exception as error:
            # Reported by the catch-all around main; the document is printed here as well.
            if as_json:
                text = f"the runner itself failed: {type(error).__name__}"
                _refused(options, [text], ExitCode.RUNNER, as_json=True)
            raise
        wanted = ExecutionFilter(run=report.run.id)
        done = app.queries.executions(wanted) if changes is None else changes.executions()
        _print(report, changes, done, due=due, as_json=as_json)
    return report.exit_code


def _misplaced(texts: Sequence[str], arguments: Sequence[str]) -> Iterator[str]:
    """Say so if a command stands behind options, and was taken for the name of a job."""
    if not arguments or not arguments[0].startswith("-"):
        return
    names = (each.name for each in COMMANDS if each.name in arguments)
    for name in names:
        if any(text.startswith(f"no job {name!r};") for text in texts):
            yield f"options go behind the command: cronrunner {name} {arguments[0]} ..."


def _print(
    report: Report,
    changes: Changes | None,
    executions: Iterable[documents.Document],
    *,
    due: bool,
    as_json: bool,
) -> None:
    if as_json:
        documents.write(_document(report, executions))
    elif report.exit_code == ExitCode.USAGE:
        for text in report.errors:
            rendering.complain(text)
    elif changes is None:
        rendering.print_report(report, executions, due=due and not report.planned)
    else:
        rendering.print_report(report)
        print_changes(changes)


def _limit(asked: tuple[int | None, float | None] | None) -> FailureLimit | None:
    return None if asked is None else FailureLimit(count=asked[0], percent=asked[1])


def _command() -> str:
    """Return the command line as it was typed; a run refuses one that holds a secret."""
    return " ".join(["cronrunner", *sys.argv[1:]])


def _run(app: App, selection: Selection, options: RunOptions, changes: Changes | None) -> Report:
    """Run with a progress bar on a terminal, and with a log line per execution elsewhere.

    On a terminal a run over few tenants logs them; over the fleet the bar takes their place.
    """
    terminal = options.watched
    progress = _progress(app) if terminal else None
    log: Listener = logs.LogListener()
    if terminal and not selection.tenants:
        log = _WithoutExecutions(log)
    listeners = [each for each in (log, progress, changes, _Tidying()) if each is not None]
    try:
        with progress or nullcontext(), stdout_for_results(), _Drain() as drain:
            return start_run(app, selection, options, listeners=listeners, on_runner=drain.watch)
    finally:
        logs.flush()


def _progress(app: App) -> Progress:
    from cronrunner.cli.progress import Progress  # noqa: PLC0415 - only a terminal pays

    return Progress(app.permits)


class _Tidying:
    """Has garbage collected from the plan on; what is there by then stays to the end."""

    def hears(self, kind: type[Event]) -> bool:
        """Wait for the plan."""
        return kind is RunPlanned

    def on(self, _: Event) -> None:
        """Begin, now that the plan is made."""
        begin_tidying()


class _WithoutExecutions:
    """A log in which single executions are left out."""

    def __init__(self, log: Listener) -> None:
        self._log = log

    def hears(self, kind: type[Event]) -> bool:
        """Leave out what is about one execution."""
        return kind not in {ExecutionStarted, ExecutionFinished}

    def on(self, event: Event) -> None:
        """Pass on the others."""
        self._log.on(event)


class _Drain:
    """Signals while a run lasts: the first drains it, the second ends the process at once."""

    _SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self._drain: Callable[[str], None] | None = None
        #: The signals that have come.
        self._names: list[str] = []
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {each: signal.signal(each, self._on) for each in self._SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def watch(self, runner: Runner) -> None:
        """Drain this runner, at once if a signal came while it was put together."""
        self._drain = runner.drain
        for name in self._names:
            runner.drain(name)

    def _on(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._names.append(signal.Signals(number).name)
        if len(self._names) > 1:
            # Nothing is awaited any more, not even the ledger: the next run finds what was left.
            os._exit(ExitCode.DRAINED)
        if self._drain is not None:
            self._drain(self._names[0])


def _document(report: Report, executions: Iterable[documents.Document]) -> documents.Document:
    return documents.run_document(
        run=report.run.id,
        scheduled_at=report.run.scheduled_at,
        exit_code=report.exit_code,
        duration_seconds=report.duration_seconds,
        tenants=report.tenants,
        outcomes={str(name): count for name, count in report.outcomes.items() if count},
        duplicates=report.duplicates,
        errors=report.errors,
        causes=[
            {"cause": each.cause, "count": each.count, "tenant_names": list(each.tenant_names)}
            for each in report.causes
        ],
        executions=executions,
        dry_run=report.run.dry_run,
    )


def _refused(options: RunOptions, texts: list[str], code: int, *, as_json: bool) -> int:
    """Say why nothing was run; the document is printed at this exit code as well."""
    for text in texts:
        rendering.complain(text)
    if as_json:
        documents.write(
            documents.run_document(
                run=None,
                scheduled_at=options.scheduled_at,
                exit_code=code,
                duration_seconds=0.0,
                tenants=0,
                outcomes={},
                duplicates=0,
                errors=texts,
                causes=[],
                executions=[],
                dry_run=options.dry_run,
            )
        )
    return code
