"""The plan of a run: what is wanted of whom, by all that is known of jobs, tenants and history."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from cronrunner.app.selections import selection_document
from cronrunner.model import FLEET, Job, Pair, Plan, Scope, Tenant
from cronrunner.planning import Selection, Veto, make_plan, select_tenants, set_nothing_aside
from cronrunner.quarantine import why_left_out

if TYPE_CHECKING:
    from cronrunner.app import App
    from cronrunner.app.due import Due


def lay_out(  # noqa: PLR0913 - each has a name of its own
    app: App,
    jobs: Sequence[Job],
    tenants: Sequence[Tenant],
    selection: Selection,
    confined: frozenset[tuple[str, str]] | None = None,
    *,
    at: datetime | None = None,
    due: Due | None = None,
    fleet: bool = True,
    setting_aside: Veto = set_nothing_aside,
) -> Plan:
    """Lay out a run over what discovery found; ``confined`` to (job, tenant) pairs.

    ``at`` is the run's slot, without which it is now. With ``due`` what is not due is left
    out. Without ``fleet`` fleet-scope jobs stay out of it; what ``setting_aside`` names is to
    be recorded as skipped, as is what is paused. Raises ``ConfigError``.
    """
    chosen = select_tenants(tenants, selection)
    named = [FLEET, *(tenant.name for tenant in chosen)]
    statistics = app.queries.pairs([job.name for job in jobs], named)
    asked_for = frozenset(selection.tenants)

    def veto(job: Job, tenant: Tenant) -> str | None:
        if confined is not None and (job.name, tenant.name) not in confined:
            return "did not fail in the run that is repeated"
        refused = app.catalogue.veto(job, tenant)
        if refused is None and due is not None and confined is None:
            refused = due.veto(job, tenant)
        return refused

    def aside(job: Job, tenant: Tenant) -> str | None:
        why = app.setting_aside(job, tenant) or setting_aside(job, tenant)
        if why or confined is not None or tenant.name in asked_for:
            return why
        pair = statistics.get((job.name, tenant.name))
        return None if pair is None else _quarantined(app, job, pair, at)

    if confined is not None:
        jobs = [j for j in jobs if j.scope is Scope.TENANT or (j.name, FLEET) in confined]
    if due is not None and confined is None:
        jobs = due.jobs(jobs)
    return make_plan(
        jobs,
        chosen,
        veto=veto,
        setting_aside=aside,
        statistics=statistics,
        missed=lambda job, tenant: due is not None and due.is_missed(job, tenant),
        drained_since=app.queries.drained_since(
            selection_document(selection, due=due is not None, options=app.catalogue.asked)
        ),
        fleet=fleet and not selection.narrows_tenants,
    )


def _quarantined(app: App, job: Job, pair: Pair, at: datetime | None) -> str | None:
    settings = app.settings.runner.quarantine
    if not settings.after:
        return None
    return why_left_out(pair, job.code_digest, at=at or app.clock(), probe=settings.probe)
