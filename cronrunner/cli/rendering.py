"""What people read: summaries, by rich, which is imported when there is something to say."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from cronrunner.cli.tables import SHOWN, outcome, print_table
from cronrunner.model import WELL, Outcome, Report, Unwell

if TYPE_CHECKING:
    from rich.console import Console

#: Columns of output that goes to no terminal: tables are then as wide as their contents.
_WIDTH = 1000

#: Tenants shown beside a cause.
_NAMED = 5

#: Executions of a small run.
_FEW = 10

#: Jobs named in a command that repeats them.
_JOBS = 3

#: Earlier runs that are named, whose failures stand.
_RUNS = 3


def console() -> Console:
    """Return the console of stdout; what is piped is not wrapped at 80 columns."""
    from rich.console import Console  # noqa: PLC0415 - see the module

    out = Console(highlight=False)
    return out if out.is_terminal else Console(highlight=False, width=_WIDTH)


def complain(text: str) -> None:
    """Say on stderr what is wrong."""
    click.echo(f"cronrunner: {text}", err=True)


def print_report(
    report: Report, executions: Iterable[Mapping[str, Any]] = (), *, due: bool = False
) -> None:
    """Print the summary of a run: counts, failures by cause, slowest tenants, what to do next.

    Of a small run all ``executions`` are shown; they are read of no other.
    """
    from rich.markup import escape  # noqa: PLC0415 - see the module

    out = console()
    run = report.run
    out.print(
        f"[bold]{'dry run' if run.dry_run else 'run'} {run.id}[/]"
        + (f"  slot {run.slot.key}" if run.scheduled_at else "")
    )
    total = sum(report.outcomes.values())
    rate = total / report.duration_seconds if report.duration_seconds else 0.0
    out.print(
        f"{count(report.tenants, 'tenant')}, {count(total, 'execution')}"
        f" in {report.duration_seconds:.1f} s ({rate:.0f}/s)"
    )
    print_outcomes(out, report.outcomes, none="nothing was due" if due else "nothing was executed")
    print_skips(out, report.skips)
    if is_small(total):
        print_executions(list(executions))
    if report.duplicates:
        out.print(f"{report.duplicates} of this slot were done already: nothing was repeated")
    for run_id, number in islice(report.unwell_duplicates.items(), _RUNS):
        again = f"cronrunner run --only-failed {run_id}"
        out.print(f"{number} of them did not end well; to repeat what failed there: {again}")
    if report.held:
        out.print(f"{report.held} are held by another run that is alive")
    causes = [(each.cause, each.count, each.tenant_names) for each in report.causes]
    print_causes(out, causes, report.unwell_tenants)
    if any(seconds for _, seconds in report.slowest):
        slow = ", ".join(f"{escape(name)} {seconds:.2f} s" for name, seconds in report.slowest)
        out.print(f"slowest: {slow}")
    for text in report.errors:
        out.print(f"[red]{escape(text)}[/]")
    _print_next(out, report)


def print_outcomes(
    out: Console, outcomes: Mapping[Any, int], *, none: str = "nothing was executed"
) -> None:
    """Print how many executions had which outcome, or that there were ``none``."""
    parts = [f"[bold]{outcomes[each]}[/] {outcome(each)}" for each in Outcome if outcomes.get(each)]
    out.print("  ".join(parts) or none)


def is_small(executions: int) -> bool:
    """Tell whether there is room for all executions of a run, those that went well too."""
    return executions <= _FEW


def print_executions(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a table of executions, with what came of each; nothing if there are none."""
    if not rows:
        return
    print_table(
        ("job", "tenant", "server", "outcome", "seconds", "result"),
        (
            (
                row["job"],
                row["tenant"] or "(fleet)",
                row["server"],
                Outcome(row["outcome"]),
                row["duration_seconds"],
                result_of(row),
            )
            for row in rows
        ),
        most=SHOWN,
    )


def result_of(row: Mapping[str, Any]) -> str:
    """Return what came of an execution, as far as a cell of a table has room for it."""
    if said := row["error"] or row["reason"]:
        return str(said)
    counters = (f"{name}={count}" for name, count in row["counters"].items())
    return " ".join((*filter(None, [row["note"]]), *counters))


def print_skips(out: Console, skips: Mapping[str, int]) -> None:
    """Print how many executions were skipped for what."""
    if skips:
        parts = [f"{number} {why}" for why, number in sorted(skips.items())]
        out.print(f"skipped: {', '.join(parts)}", markup=False)


def print_causes(
    out: Console, causes: Sequence[tuple[str, int, Sequence[str]]], tenants: int
) -> None:
    """Print failures grouped by cause, the commonest first: cause, executions, tenants."""
    if not causes:
        return
    from rich.markup import escape  # noqa: PLC0415 - see the module
    from rich.table import Table  # noqa: PLC0415

    out.print()
    out.print(f"[bold]{count(len(causes), 'cause')}, {count(tenants, 'tenant')}[/]")
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(justify="right")
    table.add_column(overflow="fold")
    table.add_column(overflow="fold", style="dim")
    for cause, times, names in causes:
        shown = ", ".join(name or "(fleet)" for name in names[:_NAMED])
        if times > _NAMED:
            shown += ", ..."
        table.add_row(f"{times} x", escape(cause), escape(shown))
    out.print(table)
    out.print()


def count(number: int, noun: str) -> str:
    """Write a number with its noun.

    >>> count(1, "cause"), count(412, "tenant")
    ('1 cause', '412 tenants')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _print_next(out: Console, report: Report) -> None:
    from rich.markup import escape  # noqa: PLC0415 - see the module

    if report.run.dry_run:
        return
    unwell = any(report.outcomes.get(each) for each in Outcome if each not in WELL)
    more = f"more: cronrunner show {report.run.id}"
    if unwell and report.example is not None:
        more += f"; one of them again: {escape(_again(report.run.id, report.example))}"
    out.print(more)


def _again(run: str, unwell: Unwell) -> str:
    """Return the command that repeats what failed on a tenant, and nothing else."""
    jobs = dict.fromkeys(name.partition(":")[0] for name in unwell.jobs)
    what = " ".join(jobs) if len(jobs) <= _JOBS else f"--only-failed {run}"
    return f"cronrunner run {what} --tenant={shlex.quote(unwell.tenant)}"
