"""The start-up hook in one process: called once, whoever comes first."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from cronrunner.app.startup import Once
from cronrunner.errors import DeadlineError, StartupError
from cronrunner.registry.python import Startup


def context(seconds: float = 5.0) -> Any:
    return SimpleNamespace(app=None, remaining=lambda: timedelta(seconds=seconds))


def test_of_many_that_come_at_once_one_calls_it_and_all_get_what_it_returned() -> None:
    calls: list[int] = []

    def connect() -> list[int]:
        calls.append(1)
        time.sleep(0.05)
        return calls

    once = Once(Startup(call=connect, origin="a.py:1"))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: once.before(lambda ctx: ctx.app)(context()), range(8)))

    assert calls == [1]
    assert all(each is calls for each in found)


def test_a_failure_is_kept_and_the_first_one_shows_where_it_came_from() -> None:
    calls: list[int] = []

    def connect() -> None:
        calls.append(1)
        raise KeyError("missing")

    once = Once(Startup(call=connect, origin="a.py:1"))
    text = "the start-up hook a.py:1 failed: KeyError: 'missing'"
    with pytest.raises(StartupError, match=text) as first:
        once.value()
    with pytest.raises(StartupError, match=text) as second:
        once.value()

    assert calls == [1]
    assert isinstance(first.value.__cause__, KeyError)
    assert second.value.__cause__ is None


def test_who_waits_for_it_waits_no_longer_than_his_own_time() -> None:
    go = threading.Event()
    once = Once(Startup(call=go.wait, origin="a.py:1"))
    first = threading.Thread(target=once.value)
    first.start()
    try:
        with pytest.raises(DeadlineError):
            once.before(lambda ctx: ctx.app)(context(seconds=0.05))
    finally:
        go.set()
        first.join()
    assert once.value() is True


def test_before_a_coroutine_it_stays_one() -> None:
    async def work(ctx: Any) -> Any:
        await asyncio.sleep(0)
        return ctx.app

    once = Once(Startup(call=lambda: "made", origin="a.py:1"))
    assert asyncio.run(once.before(work)(context())) == "made"
