"""From how an attempt went to its result: outcome, error, cause, counters.

Whatever a job raised or returned, there is a result, and the ledger can store it: texts are
scrubbed, clipped, and free of what is no text; counters fit.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from cronrunner.databases import describe, facts
from cronrunner.errors import (
    Cancel,
    CountersError,
    DeadlineError,
    DryRunError,
    OverlapError,
    ProcessDied,
    Retry,
    ScriptError,
    Skip,
)
from cronrunner.execution.attempt import Attempt, Work
from cronrunner.model import (
    EMPTY,
    Outcome,
    Reason,
    Result,
    Tenant,
    own_reason,
)
from cronrunner.redaction import Redactor, format_traceback
from cronrunner.watchdog import Deadline

#: Characters of an error, and of a reason, that the ledger keeps.
_ERROR_LIMIT: Final = 2000
_CAUSE_LIMIT: Final = 300
#: Characters of what a job says of itself.
_NOTE_LIMIT: Final = 500
#: Bytes of a job's counters as JSON: a TEXT of MySQL holds 65,535.
_COUNTERS_LIMIT: Final = 60_000
#: What a character of a name takes there at the most, and a pair without its name.
_WRITTEN: Final = 12
_PAIR: Final = 30
#: Characters of what ``prepare`` returns, as JSON: escaped, it fits into the smallest packet that
#: servers are commonly set to take (4 MB). One that does not would cost the run its ledger.
_VALUE_LIMIT: Final = 2_000_000
_WHOLE: Final = 2**63
#: Letters from which a tenant's name is taken for one wherever it stands.
_WORD: Final = 4
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_NAME: Final = re.compile(r"[A-Za-z_]\w{0,39}")
_EXIT_STATUS: Final = re.compile(r"exit status \d+")
_VARIABLE: Final = re.compile(r"\b[0-9a-f]{8}(?:-?[0-9a-f]{4,})+\b|\b\d+(?:\.\d+)?\b")


class Classifier:
    """Makes results of attempts."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor

    def result(self, attempt: Attempt) -> Result:
        """Return how an attempt ended. Never raises."""
        try:
            return self._with_note(self._result(attempt), attempt)
        except Exception as error:  # noqa: BLE001 - the job's own code may run here: a __str__, a __repr__
            text = f"{type(attempt.error).__name__}: it cannot be shown ({type(error).__name__})"
            return replace(begun(attempt), outcome=Outcome.FAILED, error=text, cause=text)

    def _with_note(self, result: Result, attempt: Attempt) -> Result:
        noted = None if attempt.context is None else attempt.context.noted
        if noted is None or attempt.work is None or attempt.work.keeps_value:
            return result
        return replace(result, note=self._text(noted)[:_NOTE_LIMIT])

    def _result(self, attempt: Attempt) -> Result:
        if attempt.error is None:
            return self._succeeded(attempt)
        result = begun(attempt)
        match attempt.error:
            case Skip() | Cancel() | OverlapError() as error:
                return self._left(result, error)
            case DeadlineError() as error:
                return self._expired(result, attempt.deadline, error)
            case error:
                return self._failed(result, attempt, error)

    def _succeeded(self, attempt: Attempt) -> Result:
        if attempt.work is not None and attempt.work.keeps_value:
            return begun(attempt, value=attempt.value)
        reason = Reason.RECOVERED.value if attempt.recovered else None
        counters = {self._text(name): count for name, count in attempt.value.items()}
        return begun(attempt, counters=counters, reason=reason, rows_changed=attempt.rows_changed)

    def _left(self, result: Result, error: Skip | Cancel | OverlapError) -> Result:
        """Tell what the job itself answered from what kept it from being asked."""
        if isinstance(error, OverlapError):
            return replace(result, outcome=Outcome.SKIPPED, reason=f"{Reason.OVERLAP}: {error}")
        outcome = Outcome.SKIPPED if isinstance(error, Skip) else Outcome.CANCELLED
        reason = self._text(own_reason(error.reason))
        return replace(result, outcome=outcome, reason=reason, by_job=True)

    def _text(self, text: str) -> str:
        if not text.isprintable():
            text = text.encode("utf-8", "backslashreplace").decode()
            # What would drive the terminal of whoever reads it is written out.
            text = _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)
        return self._redactor.text(text)[:_ERROR_LIMIT]

    def _expired(self, result: Result, deadline: Deadline | None, error: DeadlineError) -> Result:
        """Tell a job that took too long from one that a drain did not wait for."""
        text = f"DeadlineError: {error}"
        if deadline is not None and deadline.drained:
            reason = Reason.GRACE_EXPIRED.value
            return replace(result, outcome=Outcome.INTERRUPTED, reason=reason, cause=reason)
        return replace(result, outcome=Outcome.TIMED_OUT, error=text, cause=text)

    def _failed(self, result: Result, attempt: Attempt, error: BaseException) -> Result:
        what = facts(error)
        asked = error if isinstance(error, Retry) else None
        # A tenant that cannot be reached, or a process that died, has nothing to show but frames
        # of the driver or of the runner.
        silent = attempt.unreached or asked is not None or isinstance(error, ProcessDied)
        failed = replace(
            result,
            outcome=Outcome.TENANT_GONE if what.gone and attempt.unreached else Outcome.FAILED,
            error=self._text(describe(error)),
            cause=self._cause(error, what.text, attempt.tenant),
            code=what.code,
            unreached=what.refused and attempt.unreached,
            server_fault=what.lost or (what.refused and attempt.unreached),
            transient=what.transient or asked is not None or _is_named(attempt.work, error),
            policy=None if attempt.work is None else attempt.work.job.retry,
            retry_after=None if asked is None else asked.after,
            traceback=None if silent else format_traceback(error, describe, self._redactor),
        )
        # No error of the job's: in a real run it would go well.
        is_dry = isinstance(error, DryRunError)
        return replace(failed, error=str(error), cause=str(error)) if is_dry else failed

    def _cause(self, error: BaseException, text: str, tenant: Tenant) -> str:
        shown = self._text(text)
        if isinstance(error, ProcessDied):
            # How a process died is told by the number that would be taken out.
            return shown
        cause = cause_of(shown, tenant)
        if isinstance(error, ScriptError) and (status := _EXIT_STATUS.search(shown)):
            # The first one is the script's own; what follows are its words.
            cause = cause.replace("exit status #", status[0], 1)
        return cause


def begun(attempt: Attempt, **known: Any) -> Result:  # noqa: ANN401 - the fields of a result
    """Return the result of an attempt as far as it is known: as if it had ended well now."""
    return Result(
        request=attempt.request,
        server=attempt.tenant.server,
        outcome=Outcome.SUCCEEDED,
        started_at=attempt.started_at,
        duration_seconds=time.monotonic() - attempt.started,
        **known,
    )


def _is_named(work: Work | None, error: BaseException) -> bool:
    """Tell whether the job's policy names this error."""
    return work is not None and isinstance(error, work.job.retry.on)


def read_counters(value: Any) -> Mapping[str, int]:  # noqa: ANN401 - whatever a job returns
    if value is None:
        return EMPTY
    wrong = _wrong_counters(value) if isinstance(value, Mapping) else [type(value).__name__]
    if not wrong:
        counters = dict(value)
        _check_size(counters)
        return counters
    got = " and ".join(sorted(set(wrong)))
    msg = f"expected a job to return None or a mapping of names to whole numbers, got {got}"
    raise CountersError(msg[:_CAUSE_LIMIT])


def kept_value(value: Any) -> str:  # noqa: ANN401 - whatever ``prepare`` returns
    """Return a prepared value as the ledger keeps it. Raises for what JSON or it cannot hold."""
    text = json.dumps(value)
    if len(text) > _VALUE_LIMIT:
        msg = (
            f"expected prepare to return at most {_VALUE_LIMIT} characters of JSON, got {len(text)}"
        )
        raise ValueError(msg)
    return text


def _wrong_counters(value: Mapping[Any, Any]) -> list[str]:
    """Name what is no counter by its key and the type of its value.

    What a job returns by mistake is often rows: no value, and no key that is not like a name.
    """
    wrong = []
    for name, count in value.items():
        is_text = isinstance(name, str)
        if is_text and isinstance(count, int) and not isinstance(count, bool):
            continue
        shown = name if is_text and _NAME.fullmatch(name) else type(name).__name__
        wrong.append(f"{shown}: {type(count).__name__}")
    return wrong


def _check_size(counters: Mapping[str, int]) -> None:
    too_large = [name for name, count in counters.items() if not -_WHOLE <= count < _WHOLE]
    if too_large:
        msg = f"expected counters of at most 64 bits, got more in {', '.join(too_large)}"
        raise CountersError(msg[:_CAUSE_LIMIT])
    if sum(map(len, counters)) * _WRITTEN + len(counters) * _PAIR <= _COUNTERS_LIMIT:
        return
    size = len(json.dumps(counters))
    if size > _COUNTERS_LIMIT:
        msg = f"expected counters of at most {_COUNTERS_LIMIT} bytes as JSON, got {size}"
        raise CountersError(msg)


def cause_of(text: str, tenant: Tenant) -> str:
    """Take out of an error what differs between tenants: names, numbers, ids.

    >>> cause_of("ProgrammingError 1146: Table 'acme.t' doesn't exist", Tenant(
    ...     name="acme", server="main", database="acme"))
    "ProgrammingError 1146: Table '*.t' doesn't exist"
    """
    kind, colon, message = text.partition(": ")
    # The longer first: a name may be a part of the path of its file.
    for name in sorted({tenant.database, tenant.name} - {""}, key=len, reverse=True):
        # A name that is a short word may stand in any sentence: it counts where names are written.
        is_word = name.isalpha() and len(name) < _WORD
        before, after = (r"(?<=['\"`/<])", r"(?=['\"`/.>])") if is_word else ("", "")
        message = re.sub(rf"{before}(?<!\w){re.escape(name)}(?!\w){after}", "*", message)
    return (kind + colon + _VARIABLE.sub("#", message))[:_CAUSE_LIMIT]
