"""What can go wrong, and who must act. A docstring is the default message."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta


class CronrunnerError(Exception):
    """Something went wrong in cronrunner."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or inspect.getdoc(type(self)) or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One mistake in the configuration, a job file or on the command line.

    ``text`` says what was expected, what came and what to do.
    """

    text: str
    file: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        """Render as ``file:line: text``."""
        place = [part for part in (self.file, self.line and str(self.line)) if part]
        return f"{':'.join(place)}: {self.text}" if place else self.text


class ConfigError(CronrunnerError):
    """The configuration has mistakes; nothing was run. The operator mends them."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class DurationError(CronrunnerError, ValueError):
    """Expected a duration such as 30s, 5m or 1h30m."""

    def __init__(self, text: str) -> None:
        super().__init__(f"expected a duration such as 30s, 5m or 1h30m, got {text!r}")


class JobFileError(CronrunnerError):
    """A job file is broken; its jobs are disabled. Its author mends it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class DiscoveryError(CronrunnerError):
    """Tenants could not be found. The operator looks at the server."""

    def __init__(self, message: str | None = None, *, reason: str = "error") -> None:
        super().__init__(message)
        #: A word of a closed set, for metrics.
        self.reason = reason


class LedgerError(CronrunnerError):
    """The ledger cannot be used. The operator looks at the ledger's database."""


class DeadlineError(CronrunnerError):
    """The job's timeout is over. Give it a longer one, or let it do less at a time."""


class OverlapError(CronrunnerError):
    """Another session holds the server's lock on this work."""


class ProcessDied(CronrunnerError):  # noqa: N818 - a word that operators read as a cause
    """The job's process ended before the job did: a crash, an exit, or the system's memory."""


class ConnectionBusyError(CronrunnerError):
    """The visit's one connection is in use.

    Use ctx.connection (or ctx.session()) or ctx.engine in one job, not both at once.
    """


class ConnectionClosedError(CronrunnerError):
    """The job has closed ctx.connection, which rolled back what it had not committed.

    The runner commits and closes it when the job returns.
    """


class VisitOverError(CronrunnerError):
    """The engine belongs to a job that has ended; it opens no more connections."""


class DryRunError(CronrunnerError):
    """dry run: this could not be rolled back."""


class NoTenantError(CronrunnerError):
    """A fleet-scope job has no tenant, and so no connection. Use scope="tenant"."""


class BatchError(CronrunnerError):
    """ctx.batches() commits each batch. Declare transaction="batch" for the job."""


class UnknownParameterError(CronrunnerError):
    """A statement names a parameter that has no value."""


class ScriptError(CronrunnerError):
    """A script ended with a status that is not 0."""


class StartupError(CronrunnerError):
    """The start-up hook failed; jobs in Python cannot run without it."""


class FleetOnlyError(CronrunnerError):
    """The ledger's database is for work that is done once for the fleet, not for a tenant's job."""


class CountersError(CronrunnerError):
    """A job returns None or a mapping of counter names to whole numbers."""


class Skip(Exception):  # noqa: N818 - a word for job authors, not an error
    """Raise in a job: there is nothing to do here. The slot counts as done."""

    def __init__(self, reason: object = "skipped by the job") -> None:
        super().__init__(reason)
        self.reason = str(reason)


class Cancel(Exception):  # noqa: N818 - a word for job authors, not an error
    """Raise in a job: this should not go on. Rolled back, not repeated, not well."""

    def __init__(self, reason: object = "cancelled by the job") -> None:
        super().__init__(reason)
        self.reason = str(reason)


class Retry(Exception):  # noqa: N818 - a word for job authors, not an error
    """Raise in a job: rolled back, and to be tried again, after a delay if one is given."""

    def __init__(
        self, reason: object = "the job asked to be retried", *, after: timedelta | None = None
    ) -> None:
        given: object = after
        if given is not None and not isinstance(given, timedelta):
            msg = f"expected after to be a timedelta, got {type(given).__name__}"
            raise TypeError(msg)
        super().__init__(reason)
        self.reason = str(reason)
        self.after = after
