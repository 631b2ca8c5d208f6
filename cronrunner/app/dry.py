"""What a dry run leaves out: jobs whose effects no rollback would undo."""

from __future__ import annotations

from collections.abc import Sequence

from cronrunner.errors import ConfigError, Problem
from cronrunner.model import Effects, Job, Reason, Tenant, Transaction


def refusal(job: Job) -> str | None:
    """Say why a job cannot be run dry."""
    if job.effects is not Effects.DATABASE:
        return "it declares effects outside of the database"
    if job.transaction is Transaction.NONE:
        return 'it commits for itself (transaction="none")'
    return None


def set_aside(job: Job, tenant: Tenant) -> str | None:
    """Say with which reason a dry run skips a job; on every tenant alike."""
    del tenant
    why = refusal(job)
    return None if why is None else f"{Reason.DRY_RUN}: {why}"


def refused(jobs: Sequence[Job], patterns: Sequence[str]) -> list[str]:
    """Return a text for each job that is left out.

    Raises ``ConfigError`` for those of them that ``patterns`` name, and not by a glob, and if
    nothing is left of what the patterns name.
    """
    whys = {job.name: why for job in jobs if (why := refusal(job)) is not None}
    texts = {name: f"dry run: job {name} is not run: {why}" for name, why in whys.items()}
    named = {name for name in texts if _is_named(name, patterns)}
    if patterns and len(texts) == len(jobs):
        named = set(texts)
    if named:
        advice = "; run it without --dry-run, or name other jobs"
        raise ConfigError([Problem(text=texts[name] + advice) for name in texts if name in named])
    return list(texts.values())


def _is_named(job: str, patterns: Sequence[str]) -> bool:
    return job in patterns or job.rpartition(".")[2] in patterns
