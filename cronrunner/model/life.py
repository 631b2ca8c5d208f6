"""The life of an execution: its states, its outcomes, and what they do to its claim.

::

    claimed ──> running ──> succeeded | failed | timed_out | stuck | skipped
       │           │        | cancelled | interrupted | tenant_gone
       │           └──> waiting ──> running          (a retry: a not-before time)
       └──> skipped | cancelled | interrupted        (it never began)

``TRANSITIONS`` is that picture as a table. A claim is the right to do
``(job, tenant, slot key)``; it is durable before the job begins, and it ends open or
closed. ``closes_claim`` says which outcomes close it: a closed claim makes the same slot a
duplicate, an open one may be taken over, with a higher fence, once its holder is gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Outcome(StrEnum):
    """How an execution ended. The set is closed: every execution gets exactly one."""

    #: The job returned and its transaction, if it has one, was committed.
    SUCCEEDED = "succeeded"
    #: The job raised, or its tenant could not be reached.
    FAILED = "failed"
    #: The deadline passed and the work was cancelled.
    TIMED_OUT = "timed_out"
    #: The deadline passed and the work could not be cancelled.
    STUCK = "stuck"
    #: Nothing was done, on purpose; the reason says whose.
    SKIPPED = "skipped"
    #: Ended on purpose after it began, by the job itself or by a drain.
    CANCELLED = "cancelled"
    #: The process that held it died, or was told to end before it could finish.
    INTERRUPTED = "interrupted"
    #: The tenant's database vanished between discovery and connect.
    TENANT_GONE = "tenant_gone"


class State(StrEnum):
    """Where an execution is before it has an outcome."""

    #: The run holds the claim; the job has not begun.
    CLAIMED = "claimed"
    #: An attempt is under way.
    RUNNING = "running"
    #: An attempt failed in a way worth repeating; the next has a not-before time.
    WAITING = "waiting"


WELL: Final = frozenset({Outcome.SUCCEEDED, Outcome.SKIPPED})
"""The outcomes that leave the exit code at 0."""


_CLOSING: Final = frozenset(
    {Outcome.SUCCEEDED, Outcome.FAILED, Outcome.TIMED_OUT, Outcome.TENANT_GONE}
)


TRANSITIONS: Final[Mapping[State, frozenset[State | Outcome]]] = MappingProxyType(
    {
        # Work that never began can only be left out or cut off.
        State.CLAIMED: frozenset(
            {State.RUNNING, Outcome.SKIPPED, Outcome.CANCELLED, Outcome.INTERRUPTED}
        ),
        # An attempt ends in any outcome, or waits for the next one.
        State.RUNNING: frozenset({State.WAITING, *Outcome}),
        # A retry may be overtaken by a drain, a pause, or the death of the process.
        State.WAITING: frozenset(
            {State.RUNNING, Outcome.SKIPPED, Outcome.CANCELLED, Outcome.INTERRUPTED}
        ),
    }
)
"""The legal transitions. An outcome has none: history is never overwritten."""


def check_transition(state: State, outcome: Outcome) -> None:
    """Raise ``ValueError`` for an outcome that an execution in ``state`` cannot have."""
    if outcome not in TRANSITIONS[state]:
        msg = f"an execution that is {state} cannot end as {outcome}"
        raise ValueError(msg)


def closes_claim(outcome: Outcome, *, by_job: bool) -> bool:
    """Tell whether ``outcome`` closes the claim of its execution.

    ``by_job`` is true for a ``Skip`` or ``Cancel`` that the job itself asked for: that is an
    answer and closes, as does a slot that was missed. A skip or cancel by the runner (drain,
    pause, a failed ``prepare``) leaves the work to whoever comes next, and so do ``stuck`` and
    ``interrupted``.
    """
    if outcome in {Outcome.SKIPPED, Outcome.CANCELLED}:
        return by_job
    return outcome in _CLOSING


class Reason(StrEnum):
    """Why the runner itself skipped, cancelled or interrupted an execution."""

    PREPARE_FAILED = "prepare failed"
    DRAINED = "drained"
    STOPPED = "stopped"
    #: The ledger was lost while the run went on.
    LEDGER_LOST = "ledger lost"
    RECOVERED = "recovered"
    GRACE_EXPIRED = "grace expired"
    RUNNER_DIED = "the runner died"
    #: Somebody has paused the job, the tenant, the server or the pair.
    PAUSED = "paused"
    #: The pair failed in many runs in a row.
    QUARANTINED = "quarantined"
    #: The tenant's server has refused too many visits.
    BREAKER_OPEN = "breaker open"
    #: An earlier execution of the pair goes on.
    OVERLAP = "overlap"
    #: What it does could not be rolled back.
    DRY_RUN = "dry run"
    #: Its slot was too long ago.
    MISSED = "missed"


BY_THE_JOB: Final = "by the job"


def whose_skip(reason: str | None) -> str:
    """Return the ``Reason`` that the reason of a skip begins with, or that it was the job's own."""
    given = reason or ""
    return next((each.value for each in Reason if given.startswith(each)), BY_THE_JOB)


def own_reason(text: str) -> str:
    """Return a job's own reason, so that it cannot be taken for one of the runner's.

    >>> own_reason("stopped by hand")
    'by the job: stopped by hand'
    >>> own_reason("nothing to do")
    'nothing to do'
    """
    return text if whose_skip(text) == BY_THE_JOB else f"{BY_THE_JOB}: {text}"


class Killed(StrEnum):
    """What is ended when the time of an attempt is over."""

    STATEMENT = "statement"
    SESSION = "session"
    #: With its sessions.
    PROCESS = "process"


class Repeat(StrEnum):
    """Which closed claims a run takes up again."""

    NOTHING = "nothing"
    #: Those that did not go well.
    UNWELL = "unwell"
    EVERYTHING = "everything"


class ExitCode:
    """The exit codes: an interface, and frozen."""

    #: All well, or nothing was due, or this slot was already done.
    OK = 0
    #: Some execution did not go well, or a job file is broken.
    NOT_WELL = 1
    #: Usage or configuration.
    USAGE = 2
    #: A live run holds all of the work.
    HELD = 3
    #: Discovery failed or shrank.
    DISCOVERY = 4
    #: Stopped by the failure limit.
    STOPPED = 5
    #: The runner itself failed.
    RUNNER = 70
    #: Drained by a signal with work left.
    DRAINED = 75
