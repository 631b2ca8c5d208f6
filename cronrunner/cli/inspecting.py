"""``cronrunner jobs`` and ``tenants``: what there is."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from cronrunner import planning
from cronrunner.app import App
from cronrunner.app.choosing import choose_jobs
from cronrunner.cli import documents, rendering
from cronrunner.cli.choosing import discover, selection_of
from cronrunner.cli.describing import page_of
from cronrunner.cli.opening import open_app
from cronrunner.cli.tables import SHOWN, print_table
from cronrunner.databases import describe
from cronrunner.errors import LedgerError
from cronrunner.model import FLEET_TENANT, ExitCode, Job, Pair, Pause, Tenant
from cronrunner.schedule import Schedule


def show_jobs(*, jobs: Sequence[str], config: str | None, as_json: bool) -> int:
    """Print the jobs, or a page for each of those named; broken files go to stderr."""
    with open_app(config) as app:
        known = app.catalogue.jobs
        chosen = choose_jobs(known, app.found, jobs) if jobs else tuple(known.values())
        for problem in app.found.problems:
            rendering.complain(str(problem))
        if as_json:
            pauses = _pauses_if_known(app)
            documents.write([_job_document(job, pauses) for job in chosen])
        elif jobs:
            pages = (page_of(job, app.catalogue.options(job, FLEET_TENANT)) for job in chosen)
            sys.stdout.write(app.redactor.text("\n".join(pages)))
        else:
            _print_jobs(app, chosen)
    return ExitCode.NOT_WELL if app.found.problems else ExitCode.OK


def _print_jobs(app: App, jobs: Sequence[Job]) -> None:
    columns = ("job", "schedule", "next (UTC)", "timeout", "scope", "file", "paused", "what")
    pauses, now = _pauses_if_known(app), app.clock()
    slots = {job.name: app.catalogue.schedule(job, FLEET_TENANT) for job in jobs}
    print_table(columns, (_job_cells(job, slots[job.name], now, pauses) for job in jobs))


def _pauses_if_known(app: App) -> Sequence[Pause] | None:
    """Read the pauses; who writes jobs need not reach the ledger to see them."""
    try:
        return app.pauses()
    except (LedgerError, SQLAlchemyError) as error:
        text = error if isinstance(error, LedgerError) else describe(error)
        rendering.complain(app.redactor.text(f"what is paused is not known: {text}"))
        return None


def _of_job(job: Job, pauses: Sequence[Pause]) -> list[str]:
    """Describe the pauses that name a job; those of its tenants are shown with them."""
    return [_beyond(each, each.tenant, each.server) for each in pauses if each.job == job.name]


def _of_tenant(tenant: Tenant, pauses: Sequence[Pause]) -> list[str]:
    """Describe the pauses that name a tenant or its server; those of jobs are shown with them."""
    return [
        _beyond(each, each.job, each.server)
        for each in pauses
        if (each.tenant or each.server)
        and each.tenant in {"", tenant.name}
        and each.server in {"", tenant.server}
    ]


def _beyond(pause: Pause, *names: str) -> str:
    named = " on ".join(filter(None, names))
    return f"{named}: {pause.text}" if named else pause.text


def _job_document(job: Job, pauses: Sequence[Pause] | None) -> documents.Document:
    return {
        "job": job.name,
        "enabled": job.enabled,
        "schedule": job.schedule,
        "every_seconds": None if job.every is None else job.every.total_seconds(),
        "timezone": job.timezone,
        "catch_up_seconds": job.catch_up.total_seconds(),
        "timeout_seconds": job.timeout.total_seconds(),
        "attempts": job.retry.attempts,
        "scope": str(job.scope),
        "transaction": str(job.transaction),
        "isolation": str(job.isolation),
        "overlap": str(job.overlap),
        "exactly_once": job.exactly_once,
        "effects": str(job.effects),
        "options": {name: option.default for name, option in job.options.items()},
        "origin": job.origin,
        "description": job.description,
        "paused": None if pauses is None else _of_job(job, pauses),
    }


def _job_cells(
    job: Job, slots: Schedule, now: datetime, pauses: Sequence[Pause] | None
) -> tuple[object, ...]:
    upcoming = next(slots.after(now), None) if job.enabled else None
    name = job.name if job.enabled else f"{job.name} (disabled)"
    what = job.description.partition("\n")[0]
    paused = "; ".join(_of_job(job, pauses or ()))
    schedule = job.schedule or job.every
    return (name, schedule, upcoming, job.timeout, job.scope, job.origin, paused, what)


def show_tenants(*, config: str | None, as_json: bool, **asked: Any) -> int:  # noqa: ANN401
    """Print the tenants with what the ledger remembers of them."""
    selection = selection_of(asked)
    with open_app(config) as app:
        tenants, code = discover(app, selection)
        chosen = planning.select_tenants(tenants, selection)
        known: dict[str, list[Pair]] = {}
        for each in app.queries.pairs().values():
            known.setdefault(each.tenant, []).append(each)
        pauses = app.pauses()
        rows = [_tenant_document(each, known.get(each.name, []), pauses) for each in chosen]
        if as_json:
            documents.write(rows)
        else:
            print_table(
                (
                    "tenant",
                    "server",
                    "timezone",
                    "labels",
                    "last run",
                    "failing jobs",
                    "quarantined",
                    "paused",
                ),
                (
                    (
                        row["tenant"],
                        row["server"],
                        row["timezone"],
                        row["labels"],
                        row["last_run_at"],
                        ", ".join(row["failing_jobs"]),
                        ", ".join(row["quarantined_jobs"]),
                        "; ".join(row["paused"]),
                    )
                    for row in rows
                ),
                most=SHOWN,
            )
    return code


def _tenant_document(
    tenant: Tenant, known: Sequence[Pair], pauses: Sequence[Pause]
) -> documents.Document:
    return {
        "tenant": tenant.name,
        "server": tenant.server,
        "database": tenant.database,
        "labels": dict(tenant.labels),
        "timezone": tenant.timezone,
        "last_run_at": max((at for each in known if (at := each.last_run_at)), default=None),
        "failing_jobs": sorted(each.job for each in known if each.consecutive_failures),
        "overlapping_jobs": {
            each.job: each.overlaps_in_a_row for each in known if each.overlaps_in_a_row
        },
        "paused": _of_tenant(tenant, pauses),
        "quarantined_jobs": sorted(each.job for each in known if each.quarantined_at),
    }
