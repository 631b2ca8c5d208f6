"""What the command line says of a run, and what it cannot say together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cronrunner.errors import ConfigError, Problem
from cronrunner.runner import FailureLimit


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What the command line says of a run, beyond the selection."""

    command: str
    #: Do what is due, and not everything.
    due: bool = False
    scheduled_at: datetime | None = None
    concurrency: int | None = None
    again: bool = False
    #: Nothing that it does is to stay.
    dry_run: bool = False
    #: Names a run whose open work is to be done, or whose failures are to be repeated.
    resume: str | None = None
    only_failed: str | None = None
    accept_shrink: bool = False
    metrics_port: int | None = None
    deadline: timedelta | None = None
    max_failures: FailureLimit | None = None
    canary: int = 0
    #: Names and values of options of jobs.
    options: tuple[tuple[str, str], ...] = ()
    #: Jobs that can alert do so, whatever else says.
    alert: bool = False
    #: Somebody looks on, and is to see executions begin when they do.
    watched: bool = False


def refuse_contradictions(options: RunOptions) -> None:
    """Raise ``ConfigError`` for options of which each names another slot."""
    given = {
        "--resume": options.resume is not None,
        "--only-failed": options.only_failed is not None,
        "--again": options.again,
    }
    named = [name for name, is_given in given.items() if is_given]
    if len(named) > 1:
        raise ConfigError([Problem(text=f"expected one of {', '.join(named)}, got all of them")])


def refuse_dry(earlier: Mapping[str, Any] | None) -> None:
    """Raise ``ConfigError`` for a run that has done nothing to be resumed or repeated."""
    if earlier is not None and earlier["selection"].get("dry_run"):
        text = (
            f"run {earlier['run']} was a dry run and has left nothing; name a real run, or `last`"
        )
        raise ConfigError([Problem(text=text)])
