"""What a dry run would have changed: its executions, which no ledger keeps."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from cronrunner.cli import rendering
from cronrunner.cli.documents import Document
from cronrunner.cli.tables import print_table
from cronrunner.databases.dry import LEFT
from cronrunner.events import Event, ExecutionFinished
from cronrunner.model import Outcome, Reason, Result


class Changes:
    """Keeps how the executions of a dry run ended. A listener."""

    def __init__(self) -> None:
        self._results: list[Result] = []

    def on(self, event: Event) -> None:
        """Keep an outcome."""
        if isinstance(event, ExecutionFinished):
            self._results.append(event.result)

    def executions(self) -> Iterator[Document]:
        """Give each execution as the ledger would, and the rows that it changed."""
        return map(_document, self._results)

    def by_job(self) -> Iterator[tuple[str, int, int, Counter[str]]]:
        """Give each job that went well somewhere: executions, rows changed, sums of counters."""
        times: Counter[str] = Counter()
        rows: Counter[str] = Counter()
        counters: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for each in self._results:
            if each.outcome is Outcome.SUCCEEDED:
                job = each.request.key.job
                times[job] += 1
                rows[job] += each.rows_changed
                counters[job].update(each.counters)
        return ((job, times[job], rows[job], counters[job]) for job in sorted(times))

    def is_something_left(self) -> bool:
        """Tell whether a database could not roll back what a job had done."""
        return any(each.cause == LEFT for each in self._results)

    def left_out(self) -> Iterator[tuple[str, str]]:
        """Give each job that a dry run does not run, and why."""
        reasons = {each.request.key.job: each.reason or "" for each in self._results}
        return (
            (job, reason)
            for job, reason in sorted(reasons.items())
            if reason.startswith(f"{Reason.DRY_RUN}:")
        )


def print_changes(changes: Changes) -> None:
    """Print what a real run would have changed, job by job, and that this one did not."""
    jobs = list(changes.by_job())
    if jobs:
        print_table(("job", "executions", "rows", "would have counted"), jobs)
    out = rendering.console()
    for job, reason in changes.left_out():
        out.print(f"{job} was not run: {reason}", markup=False)
    if changes.is_something_left():
        out.print("[bold red]dry run: not everything could be rolled back; see the causes[/]")
    else:
        out.print("[bold]dry run: everything was rolled back and nothing was changed[/]")


def _document(result: Result) -> Document:
    request = result.request
    return {
        "job": request.key.job,
        "tenant": request.key.tenant,
        "server": result.server,
        "slot": request.slot,
        "outcome": result.outcome.value,
        "reason": result.reason,
        "error": result.error,
        "attempts": request.attempt,
        "started_at": result.started_at,
        "duration_seconds": result.duration_seconds,
        "counters": dict(result.counters),
        "note": result.note,
        "rows_changed": result.rows_changed,
    }
