"""Names that several threads take, each one once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor


def spread(names: Sequence[str], threads: int, work: Callable[[Iterator[str]], None]) -> None:
    """Let so many threads do ``work`` on the names that they take, until there are no more."""
    waiting, lock = iter(names), threading.Lock()

    def take() -> str | None:
        with lock:
            return next(waiting, None)

    if threads == 1:
        work(waiting)
        return
    with ThreadPoolExecutor(threads) as pool:
        working = [pool.submit(work, iter(take, None)) for _ in range(threads)]
    for each in working:
        each.result()
