"""Jobs that are coroutines: each attempt has an event loop of its own, which its deadline ends."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from cronrunner.context import JobContext
from cronrunner.model import Killed
from cronrunner.watchdog import Session


def is_coroutine(call: Callable[..., Any]) -> bool:
    """Tell whether ``call`` is an ``async def``, or an object that is called as one."""
    if inspect.isfunction(call):
        return inspect.iscoroutinefunction(call)
    return inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(type(call).__call__)


class CoroutineCall:
    """Calls a coroutine function as if it were a plain one. For the watchdog a session.

    A coroutine that waits for something else than the database is woken up by the cancellation of
    its task; one that waits for the database blocks its loop, and by that of its statement.
    """

    def __init__(self, call: Callable[[JobContext], Any], session: Session | None) -> None:
        self._call = call
        self._session = session
        self._task: asyncio.Task[Any] | None = None
        self._is_cancelled = False

    def __call__(self, ctx: JobContext) -> Any:  # noqa: ANN401 - whatever a job returns
        """Run the coroutine to its end, in this thread."""
        return asyncio.run(self._main(self._call(ctx)))

    async def _main(self, coroutine: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401 - as above
        self._task = asyncio.current_task()
        if self._is_cancelled and self._task is not None:
            self._task.cancel()
        return await coroutine

    # What the watchdog does, from its own thread.

    @property
    def severed(self) -> Killed:
        """What ``sever`` ends."""
        return Killed.SESSION if self._session is None else self._session.severed

    def cancel(self) -> bool | None:
        """Cancel the task, and the statement that it may wait for."""
        self._is_cancelled = True
        if self._task is not None:
            # The loop may have come to its end meanwhile.
            with suppress(RuntimeError):
                self._task.get_loop().call_soon_threadsafe(self._task.cancel)
        return False if self._session is None else self._session.cancel()

    def sever(self) -> None:
        """End the session."""
        if self._session is not None:
            self._session.sever()
