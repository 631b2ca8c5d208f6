"""When to try an execution again, or never. Pure: nothing here waits."""

from __future__ import annotations

import random
from datetime import timedelta

import tenacity

from cronrunner.model import RetryPolicy


def delay_before_next(
    policy: RetryPolicy, attempt: int, *, asked: timedelta | None, rng: random.Random
) -> timedelta | None:
    """Return how long to wait after attempt number ``attempt``, or ``None`` for never again.

    ``asked`` is the delay that the job itself gave to ``Retry``. Otherwise the ceiling grows
    twofold from ``policy.wait`` to ``policy.cap``, and the wait is drawn from below it (full
    jitter): many tenants that failed together do not come back together.
    """
    if attempt >= policy.attempts:
        return None
    if asked is not None:
        return asked
    grow = tenacity.wait_exponential(
        multiplier=policy.wait.total_seconds(), max=policy.cap.total_seconds()
    )
    state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    state.attempt_number = attempt
    return timedelta(seconds=rng.uniform(0.0, grow(state)))
