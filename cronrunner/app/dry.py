"""What a dry run leaves out: jobs whose effects no rollback would undo."""

from __future__ import annotations

from collections.abc import Sequence

from cronrunner.errors import ConfigError, Problem
from cronrunner.model import Job, Reason, Tenant, Transaction


def refusal(job: Job) -> str | None:
    """Say why a job cannot be run dry."""
    if job.external_effects:
        return "it declares effects outside of the database"
    if job.transaction is Transaction.NONE:
        return 'it commits for itself (transaction="none")'
    return None


def set_aside(job: Job, tenant: Tenant) -> str | None:
    """Say with which reason a dry run skips a job; on every tenant alike."""
    del tenant
    why = refusal(job)
    return None if why is None else f"{Reason.DRY_RUN}: {why}"


def refused(jobs: Sequence[Job], *, named: bool) -> list[str]:
    """Return a text for each job that is left out.

    Raises ``ConfigError`` with them if jobs were named and all of them are.
    """
    whys = {job.name: why for job in jobs if (why := refusal(job)) is not None}
    texts = [f"dry run: job {name} is not run: {why}" for name, why in whys.items()]
    if named and texts and len(texts) == len(jobs):
        advice = "; run it without --dry-run, or name other jobs"
        raise ConfigError([Problem(text=text + advice) for text in texts])
    return texts
