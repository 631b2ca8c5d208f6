"""What becomes of a result: recorded, told, counted, or made a new attempt."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from cronrunner.errors import LedgerError
from cronrunner.events import AttemptFailed, ExecutionFinished
from cronrunner.executors import Executor
from cronrunner.model import (
    FLEET_TENANT,
    Key,
    Outcome,
    Reason,
    Request,
    Result,
    RetryPolicy,
    State,
    Tenant,
    VisitRequest,
    check_transition,
)
from cronrunner.retry import delay_before_next
from cronrunner.runner.ending import Ending
from cronrunner.runner.orders import Parts
from cronrunner.runner.tally import Tally


class Results:
    """Takes the results of a run, from any thread."""

    def __init__(self, parts: Parts, ending: Ending, errors: list[str]) -> None:
        """``errors`` are those of the run that belong to no execution."""
        self._parts = parts
        self._ending = ending
        self._errors = errors
        self._executor: Executor | None = None
        self._failure_limit: int | None = None
        self.tally = Tally()
        #: Why the last attempt of what waits for another one failed.
        self._failed: dict[Key, str | None] = {}
        #: Of a ``prepare`` each that is awaited: what has no result yet, not even a failed attempt.
        self.first_attempts: set[Key] = set()
        #: (job, slot key) of each ``prepare`` that failed or was not made.
        self.unprepared: set[tuple[str, str]] = set()

    def go_to(self, executor: Executor, *, failure_limit: int | None) -> None:
        """Give repeated attempts to ``executor``, and stop the run at so many failures."""
        self._executor, self._failure_limit = executor, failure_limit

    def expect(self, visits: list[VisitRequest]) -> None:
        """Note what has no result yet."""
        with self.tally.lock:
            self.tally.open.update(
                (request.key, visit.tenant) for visit in visits for request in visit.requests
            )

    def take(self, result: Result, state: State = State.RUNNING) -> None:
        """Record a result, once: after the grace the runner itself has recorded one."""
        check_transition(state, result.outcome)
        key = result.request.key
        delay = self._delay_before_next(result)
        with self.tally.lock:
            tenant = self.tally.open.get(key)
            if tenant is None:
                return
            if delay is None:
                del self.tally.open[key]
                self.tally.add(result)
            self._heed_failures()
        if delay is None:
            self._finish(key, result)
        else:
            self._repeat(result, tenant, delay)

    def take_stuck(self, result: Result) -> None:
        """Record an attempt that cannot be ended, and go on without its thread."""
        executor = self._executor
        if executor is None:
            return
        try:
            self.take(result)
        except LedgerError as error:
            # The watchdog's thread must live; the runner hears of it.
            executor.fail(error)
        finally:
            executor.abandon(result.request)

    def leave_out(self, tenant: Tenant, request: Request, reason: str) -> None:
        """Record that a planned execution is not made."""
        with self.tally.lock:
            self.tally.open[request.key] = tenant
        self.end(request, Outcome.SKIPPED, reason)

    def end(
        self, request: Request, outcome: Outcome, reason: str, state: State = State.CLAIMED
    ) -> None:
        """Give an outcome to an execution that has none of its own."""
        self.take(
            Result(
                request=request,
                server=self.tally.open.get(request.key, FLEET_TENANT).server,
                outcome=outcome,
                reason=str(reason),
                started_at=self._parts.clock(),
                duration_seconds=0.0,
                error=self._failed.get(request.key),
                cause=str(reason) if outcome is Outcome.INTERRUPTED else None,
                attempted=state is not State.CLAIMED,
            ),
            state,
        )

    def is_repeated(self, key: Key) -> bool:
        """Tell whether an attempt has failed and another one waits, or is at work."""
        return key in self._failed

    def _finish(self, key: Key, result: Result) -> None:
        job, _, hook = key.job.partition(":")
        if result.value is not None:
            self._parts.ledger.keep_prepared(job, key.slot_key, result.value)
        elif hook == "prepare":
            # Also with --again, when an earlier value of the slot is there.
            self.unprepared.add((job, key.slot_key))
        # After its value is there, or it is known that there is none.
        self._failed.pop(key, None)
        self.first_attempts.discard(key)
        self._parts.ledger.record(result)
        self._parts.events.emit(ExecutionFinished(result=result))

    def _heed_failures(self) -> None:
        """Stop at the limit of failures, once. The caller holds the tally's lock."""
        limit = self._failure_limit
        if limit is not None and self.tally.failures >= limit and self._ending.reason is None:
            failures = "1 failure" if limit == 1 else f"{limit} failures"
            self._errors.append(f"stopped at the limit of {failures}")
            self._ending.begin(Reason.STOPPED, "failure limit")

    def _delay_before_next(self, result: Result) -> timedelta | None:
        """Return when a failed attempt is repeated, ``None`` for never."""
        if not result.transient or result.outcome is not Outcome.FAILED or self._ending.has_begun():
            return None
        policy = result.policy or RetryPolicy()
        return delay_before_next(
            policy, result.request.attempt, asked=result.retry_after, rng=self._parts.rng
        )

    def _repeat(self, result: Result, tenant: Tenant, delay: timedelta) -> None:
        """Make another attempt new work, behind the others; no thread waits for it."""
        self._failed[result.request.key] = result.error
        self._parts.ledger.record(replace(result, final=False))
        self._parts.events.emit(AttemptFailed(result=result, delay=delay))
        request = replace(result.request, attempt=result.request.attempt + 1)
        if self._executor is not None:
            visit = VisitRequest(tenant=tenant, requests=(request,))
            self._executor.submit([visit], delay=delay)
        self.first_attempts.discard(result.request.key)
