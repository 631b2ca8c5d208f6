"""The start-up hook of the job folder: called once in a process, when its first job wants it.

It is called within the time of that job. Who comes meanwhile waits as long as his own time allows.
When it fails, nobody calls it again in this process: each job in Python fails with what was wrong.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from typing import Any

from cronrunner.databases import describe
from cronrunner.errors import DeadlineError, StartupError
from cronrunner.registry.python import Startup


class Once:
    """Calls the hook, and keeps what came of it."""

    def __init__(self, hook: Startup) -> None:
        self._hook = hook
        self._lock = threading.Lock()
        self._is_done = False
        self._value: Any = None
        self._failure: str | None = None

    def value(self, wait_seconds: float = threading.TIMEOUT_MAX) -> Any:  # noqa: ANN401 - what an author returns
        """Return what the hook returned. Raises ``StartupError`` and ``DeadlineError``."""
        if not self._is_done:
            if not self._lock.acquire(timeout=min(wait_seconds, threading.TIMEOUT_MAX)):
                raise DeadlineError
            try:
                self._call()
            finally:
                self._lock.release()
        if self._failure is not None:
            raise StartupError(self._failure)
        return self._value

    def _call(self) -> None:
        if self._is_done:
            return
        try:
            self._value = self._hook.call()
        except BaseException as error:
            # A SystemExit as well: it was the hook's, and not the runner's.
            self._failure = f"the start-up hook {self._hook.origin} failed: {describe(error)}"
            raise StartupError(self._failure) from error
        finally:
            self._is_done = True

    def before(self, call: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return ``call`` with the hook's value put into its context first."""

        def give(ctx: Any) -> None:  # noqa: ANN401 - a JobContext
            ctx.app = self.value(ctx.remaining().total_seconds())

        def started(ctx: Any) -> Any:  # noqa: ANN401 - and what a job returns
            give(ctx)
            return call(ctx)

        async def started_later(ctx: Any) -> Any:  # noqa: ANN401 - as above
            give(ctx)
            return await call(ctx)

        # Whoever calls it looks at what it is.
        return started_later if inspect.iscoroutinefunction(call) else started
