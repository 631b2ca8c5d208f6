"""Runs and results that look like those of a real run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from cronrunner import logs
from cronrunner.databases import describe
from cronrunner.model import Outcome, Request, Result, Run, Slot
from cronrunner.redaction import Redactor, secret_values

_NUMBERS = count()


def now() -> datetime:
    """Return the time, as the ledger wants it."""
    return datetime.now(UTC)


def new_run() -> Run:
    """Return a run of this process, with a slot of its own."""
    name, at = f"bench-{next(_NUMBERS)}", now()
    return Run(
        id=name,
        command="benchmark",
        started_at=at,
        scheduled_at=None,
        host="",
        boot="",
        pid=os.getpid(),
        pid_started=0,
        slot=Slot.of_run(name, at),
    )


def result_of(request: Request, *, server: str = "main") -> Result:
    """Return a success."""
    return Result(
        request=request,
        server=server,
        outcome=Outcome.SUCCEEDED,
        started_at=now(),
        duration_seconds=0.01,
        counters={"items": 3},
    )


@contextmanager
def log_to_nowhere(password: str) -> Iterator[None]:
    """Write this process' log as a run does, to where nobody reads it."""
    redactor = Redactor(secret_values(os.environ, [password]))
    with Path(os.devnull).open("w") as output:
        logs.configure(
            format="json", level="info", redactor=redactor, describe=describe, stream=output
        )
        yield
