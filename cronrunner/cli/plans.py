"""``cronrunner plan``: what would run, in which order, and how long it would take."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from cronrunner.app import App
from cronrunner.app.asking import read_asked
from cronrunner.app.choosing import choose_jobs
from cronrunner.app.layout import lay_out
from cronrunner.cli import documents, rendering
from cronrunner.cli.choosing import discover, selection_of
from cronrunner.cli.opening import open_app
from cronrunner.cli.tables import SHOWN, print_table
from cronrunner.estimate import Remaining
from cronrunner.model import ExitCode, Plan, format_duration

#: A shorter time is said in tenths of a second.
_WHOLE_SECONDS: Final = 10.0


def show_plan(
    *,
    why: bool,
    config: str | None,
    as_json: bool,
    values: tuple[tuple[str, str], ...],
    **asked: Any,  # noqa: ANN401 - what chooses tenants
) -> int:
    """Print the visits of a run, in order."""
    selection = selection_of(asked)
    with open_app(config) as app:
        jobs = choose_jobs(app.catalogue.jobs, app.found, selection.jobs)
        redact = app.redactor.text
        options = read_asked(values, app.catalogue.jobs, selection.jobs, redact=redact)
        app.catalogue.ask(options)
        tenants, code = discover(app, selection)
        plan = lay_out(app, jobs, tenants, selection)
        for problem in app.found.problems:
            rendering.complain(str(problem))
        if as_json:
            documents.write(_plan_document(plan))
        else:
            _print_plan(app, plan, why=why)
    return code or (ExitCode.NOT_WELL if app.found.problems else ExitCode.OK)


def _plan_document(plan: Plan) -> list[documents.Document]:
    fleet = [_planned(None, None, (name,)) for name in plan.fleet_jobs]
    visits = [
        _planned(visit.tenant.name, visit.tenant.server, visit.jobs, visit.expected_seconds)
        for visit in plan.visits
    ]
    set_aside = [
        _planned(
            each.tenant.name or None, each.tenant.server or None, (each.job,), reason=each.reason
        )
        for each in plan.set_aside
    ]
    left_out = [
        _planned(each.tenant or None, None, (each.job,) if each.job else (), reason=each.reason)
        for each in plan.left_out
    ]
    return [*fleet, *visits, *set_aside, *left_out]


def _planned(
    tenant: str | None,
    server: str | None,
    jobs: Sequence[str],
    expected_seconds: float | None = None,
    *,
    reason: str | None = None,
) -> documents.Document:
    return {
        "tenant": tenant,
        "server": server,
        "jobs": list(jobs),
        "expected_seconds": expected_seconds,
        "reason": reason,
    }


def _print_plan(app: App, plan: Plan, *, why: bool) -> None:
    rows: list[tuple[object, ...]] = [("(fleet)", "", name, None) for name in plan.fleet_jobs]
    rows += [
        (visit.tenant.name, visit.tenant.server, ", ".join(visit.jobs), visit.expected_seconds)
        for visit in plan.visits
    ]
    print_table(("tenant", "server", "jobs", "seconds"), rows, most=SHOWN)
    out = rendering.console()
    visits, executions, concurrency = len(plan.visits), plan.executions, app.concurrency(plan)
    out.print(
        f"{rendering.count(visits, 'tenant')}, {rendering.count(executions, 'execution')},"
        f" {concurrency} visits at once"
    )
    for job, asked in app.catalogue.asked.items():
        for name, value in asked.items():
            out.print(f"option {job}.{name}={value}", markup=False)
    if visits:
        out.print(_how_long(Remaining(plan.visits, concurrency=concurrency, permits=app.permits)))
    if plan.set_aside:
        print_table(
            ("skipped", "job", "why"),
            ((s.tenant.name or "(fleet)", s.job, s.reason) for s in plan.set_aside),
            most=SHOWN,
        )
    if plan.left_out and not why:
        out.print(f"{len(plan.left_out)} left out; --why shows them")
    if plan.left_out and why:
        print_table(
            ("left out", "job", "why"),
            ((o.tenant, o.job, o.reason) for o in plan.left_out),
            most=SHOWN,
        )


def _how_long(remaining: Remaining) -> str:
    """Say what history expects of the visits together."""
    seconds = remaining.seconds(0.0)
    if seconds is None:
        return "how long it takes is not known: nothing of it was ever run"
    whole = timedelta(seconds=round(seconds, 0 if seconds >= _WHOLE_SECONDS else 1))
    is_short = whole < timedelta(seconds=1)
    about = "less than a second" if is_short else f"about {format_duration(whole)}"
    text = f"it takes {about}, by history"
    if unknown := remaining.unknown:
        text += f"; {rendering.count(unknown, 'execution')} without history count as the mean"
    return text
