"""Whether the backups of a tenant are of use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Row, select, update

from cronrunner import Option, job
from jobs.audience import tell_admins
from jobs.backup_files import Expected, Verdict, verify
from jobs.health import BROKEN_BACKUP
from jobs.items import Items
from jobs.schema import backups
from jobs.wording import shorten

if TYPE_CHECKING:
    from cronrunner import JobContext


@job(
    name="maintenance.verify_backups",
    schedule="0 4 * * 0",
    retries=2,
    timeout="30m",
    options={
        "components": Option(
            ("all",),
            help="of which components to verify the newest backup",
            environment="BACKUP_VERIFY_COMPONENTS",
        ),
        "expected": Option(
            ("database",), help="components that must have a backup, also when none is known"
        ),
        "root": Option("var/backups", help="the folder below which backups are"),
        "max_age_h": Option(48, help="hours after which a backup is too old", minimum=1),
        "alert_on_failure": Option(
            default=False,
            help="write to the administrators which backups could not be restored",
            environment="ALERT_ON_FAILURE",
        ),
    },
)
def verify_backups(ctx: JobContext) -> Mapping[str, int]:
    """Find out whether the newest backup of each component could be restored.

    The first of these that is true is the result, and is kept with the backup:

    - ``missing``: no backup of the component was finished by now
    - ``stale``: it was finished more than ``max_age_h`` hours ago
    - ``unreadable``: its file is not there, cannot be read, or is not below ``root``
    - ``size_mismatch``: the file has another size than the backup had
    - ``corrupt``: the file has another SHA-256, or is a ``.gz`` that cannot be unpacked
    - ``unverified``: there is no SHA-256 to compare the file with
    - ``shrunk``: it has less than half of the size of the backup before it
    - ``ok``

    A ``root`` that is relative is so to the folder in which cronrunner was started. All but the
    last three results count as failed, and the health check fails on them. For a backup that is
    missing the newest one that was not finished keeps the result, if there is one. ``all`` stands
    for the components that have a backup of whatever state, and those in ``expected``; upper and
    lower case are alike. A component is verified once for each slot.

    Counters:
      ok: components whose backup is well
      warning: components whose backup is unverified or shrunk
      failed: components without a backup that could be restored
      already: components that this slot has verified before
      alerts: e-mails to administrators
      errors: components whose result could not be kept

    From: Risk Legion: backup verification; AgencyStack: backup verification
    """
    names = ("ok", "warning", "failed", "already", "alerts", "errors")
    counters = Counter(dict.fromkeys(names, 0))
    items = Items(ctx)
    components = _components(ctx)
    wanted = [name for name in components if not items.is_done_at_slot(name)]
    counters["already"] = len(components) - len(wanted)
    # Files first: nothing is locked while one of a terabyte is read.
    found = {name: _verified(ctx, components[name]) for name in wanted}
    failed = []
    for name, (backup, verdict) in found.items():
        with items.attempt(name):
            _keep_verdict(ctx, backup, verdict)
            items.mark(name)
            counters[_rank(verdict)] += 1
            if _rank(verdict) == "failed":
                failed.append(f"{name}: {verdict.status} ({verdict.detail})")
    if failed and ctx.options["alert_on_failure"]:
        counters["alerts"] = _alert(ctx, failed)
    return {**counters, "errors": items.errors}


def _components(ctx: JobContext) -> dict[str, list[str]]:
    """Return each component in lower case, and how the database spells it."""
    known: dict[str, list[str]] = {}
    for name in ctx.connection.scalars(select(backups.c.component).distinct()):
        known.setdefault(name.lower(), []).append(name)
    chosen = [name.lower() for name in ctx.options["components"]]
    if "all" in chosen:
        chosen = [*known, *(name.lower() for name in ctx.options["expected"])]
    return {name: known.get(name, []) for name in sorted(set(chosen))}


def _verified(ctx: JobContext, spellings: Sequence[str]) -> tuple[Row[Any] | None, Verdict]:
    """Return what was found, and the backup on which that is to be kept."""
    finished = _newest(
        ctx, spellings, backups.c.status == "finished", backups.c.finished_at <= ctx.slot
    )
    if not finished:
        unfinished = _newest(ctx, spellings, backups.c.status != "finished")
        missing = Verdict("missing", "no backup of it was finished")
        return (unfinished[0] if unfinished else None), missing
    newest = finished[0]
    if ctx.slot - newest.finished_at > timedelta(hours=ctx.options["max_age_h"]):
        return newest, Verdict("stale", f"finished at {newest.finished_at:%Y-%m-%d %H:%M:%S} UTC")
    expected = Expected(
        location=newest.location,
        size_bytes=newest.size_bytes,
        sha256=newest.sha256,
        previous_bytes=finished[1].size_bytes if finished[1:] else None,
    )
    return newest, verify(Path(ctx.options["root"]), expected, check=ctx.check)


def _newest(
    ctx: JobContext, spellings: Sequence[str], *conditions: ColumnElement[bool]
) -> Sequence[Row[Any]]:
    """Return the newest two backups of a component that meet the conditions."""
    chosen = select(backups).where(backups.c.component.in_(spellings), *conditions)
    order = (backups.c.finished_at.desc(), backups.c.id.desc())
    return ctx.connection.execute(chosen.order_by(*order).limit(2)).all()


def _keep_verdict(ctx: JobContext, backup: Row[Any] | None, verdict: Verdict) -> None:
    if backup is not None:
        this = update(backups).where(backups.c.id == backup.id)
        detail = verdict.detail and shorten(verdict.detail, 500)
        ctx.connection.execute(
            this.values(verified_at=ctx.slot, verify_status=verdict.status, verify_detail=detail)
        )


def _rank(verdict: Verdict) -> str:
    if verdict.status == "ok":
        return "ok"
    return "failed" if verdict.status in BROKEN_BACKUP else "warning"


def _alert(ctx: JobContext, failed: list[str]) -> int:
    key = f"backups:{ctx.slot:%Y-%m-%dT%H:%M:%SZ}"
    subject = f"{ctx.tenant.name}: {len(failed)} of its backups could not be restored"
    return tell_admins(ctx, key, subject, "\n".join(failed))
