"""``cronrunner history`` and ``cronrunner show``: what the ledger remembers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cronrunner.app import App
from cronrunner.cli import documents, rendering
from cronrunner.cli.opening import open_app
from cronrunner.cli.tables import print_table
from cronrunner.ledger import ExecutionFilter
from cronrunner.model import WELL, ExitCode, Outcome, whose_skip
from cronrunner.planning import matches_any, nearest

Row = Mapping[str, Any]

_NAMED = 10
_COLUMNS = ("started", "job", "tenant", "outcome", "seconds", "run", "result")


def show_history(config: str | None, wanted: ExecutionFilter, *, runs: bool, as_json: bool) -> int:
    """Print executions, or runs."""
    with open_app(config, checked=False, with_jobs=False) as app:
        if runs:
            _print_runs(app, wanted.limit or 1, as_json=as_json)
        else:
            _print_executions(app, wanted, as_json=as_json)
    return ExitCode.OK


def _print_executions(app: App, wanted: ExecutionFilter, *, as_json: bool) -> None:
    rows = list(app.queries.executions(wanted))
    if as_json:
        documents.write([documents.execution(row, with_run=True) for row in rows])
    else:
        print_table(_COLUMNS, map(_cells, rows))
    if not rows:
        for text in _unknown(app, wanted):
            rendering.complain(text)


def _unknown(app: App, wanted: ExecutionFilter) -> Iterator[str]:
    """Say which of the names that were asked for the ledger does not know at all."""
    asked = (("job", wanted.job, 0), ("tenant", wanted.tenant, 1))
    for what, name, place in asked if wanted.job or wanted.tenant else ():
        known = {pair[place] for pair in app.queries.pairs()}
        if name and not any(matches_any(each, [name]) for each in known):
            yield f"nothing was ever executed of a {what} {name!r}; {nearest(name, known)}"


def _cells(row: Row) -> tuple[object, ...]:
    tenant = row["tenant"] or "(fleet)"
    outcome = Outcome(row["outcome"])
    seconds = row["duration_seconds"]
    return (
        row["started_at"],
        row["job"],
        tenant,
        outcome,
        seconds,
        row["run"],
        rendering.result_of(row),
    )


def _print_runs(app: App, limit: int, *, as_json: bool) -> None:
    rows = app.queries.runs(limit)
    if as_json:
        names = ("run", "command", "scheduled_at", "started_at", "exit_code")
        more = ("duration_seconds", "outcomes", "duplicates")
        documents.write([{name: row[name] for name in (*names, *more)} for row in rows])
        return
    print_table(
        ("started", "run", "exit", "seconds", "outcomes", "command"),
        (
            (
                row["started_at"],
                row["run"],
                _exit(row),
                row["duration_seconds"],
                row["outcomes"],
                row["command"],
            )
            for row in rows
        ),
    )


def _exit(row: Row) -> object:
    if row["exit_code"] is not None:
        return str(row["exit_code"])
    return "running" if row["finished_at"] is None else "died"


def show_run(  # noqa: PLR0913 - the command's options
    *,
    run: str,
    job: str | None,
    tenant: str | None,
    everything: bool,
    config: str | None,
    as_json: bool,
) -> int:
    """Print one run."""
    with open_app(config, checked=False, with_jobs=False) as app:
        found = app.find_run(run)
        wanted = ExecutionFilter(run=found["run"], job=job, tenant=tenant)
        rows = list(app.queries.executions(wanted))
        if as_json:
            documents.write(_document(found, rows))
        else:
            _print_run(app, found, rows, everything=everything or tenant is not None)
    return ExitCode.OK


def _document(run: Row, rows: Sequence[Row]) -> documents.Document:
    return documents.run_document(
        run=run["run"],
        scheduled_at=run["scheduled_at"],
        exit_code=run["exit_code"],
        duration_seconds=run["duration_seconds"],
        tenants=len({row["tenant"] for row in rows if row["tenant"]}),
        outcomes=dict(Counter(row["outcome"] for row in rows)),
        duplicates=run["duplicates"] or 0,
        errors=run["errors"],
        causes=[
            {"cause": cause, "count": times, "tenant_names": list(names)}
            for cause, times, names in _causes(rows)
        ],
        executions=rows,
    )


def _causes(rows: Sequence[Row]) -> list[tuple[str, int, Sequence[str]]]:
    counts: Counter[str] = Counter()
    names: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for row in rows:
        if row["cause"] is not None:
            counts[row["cause"]] += 1
            names[row["cause"]][row["tenant"]] = None
    return [(cause, times, list(names[cause])[:_NAMED]) for cause, times in counts.most_common()]


def _skips(rows: Sequence[Row]) -> Counter[str]:
    return Counter(whose_skip(row["reason"]) for row in rows if row["outcome"] == Outcome.SKIPPED)


def _print_run(app: App, run: Row, rows: Sequence[Row], *, everything: bool) -> None:
    out = rendering.console()
    what = "dry run" if run["selection"].get("dry_run") else "run"
    out.print(f"[bold]{what} {run['run']}[/]  slot {run['slot_key']}  exit {_exit(run)}")
    out.print(f"{run['command']}  on {run['host']}, {run['duration_seconds']:.1f} s")
    rendering.print_outcomes(out, Counter(Outcome(row["outcome"]) for row in rows))
    rendering.print_skips(out, _skips(rows))
    if run["duplicates"]:
        out.print(f"{run['duplicates']} were done already by an earlier run")
    for text in run["errors"]:
        out.print(text, style="red", markup=False)
    if run["finished_at"] is None:
        flight = app.queries.in_flight(run["run"])
        out.print(f"{len(flight)} claimed and not finished")
    unwell = {row["tenant"] for row in rows if row["cause"] is not None}
    rendering.print_causes(out, _causes(rows), len(unwell))
    whole = everything or rendering.is_small(len(rows))
    rendering.print_executions(
        [row for row in rows if whole or Outcome(row["outcome"]) not in WELL]
    )
