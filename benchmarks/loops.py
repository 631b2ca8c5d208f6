"""What would be written without cronrunner: ``python -m benchmarks.loops NAME TENANTS URL``.

No deadline, no record of what ran, no log, and one failing tenant ends all. Prints the seconds
of the loop and its CPU seconds, the start of the process left out.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence

import pymysql
from sqlalchemy import URL, create_engine, make_url, text

from benchmarks.fleet import STATEMENT

_THREADS = 8


def classic(url: URL, names: Sequence[str]) -> None:
    """One tenant after another, each with an engine as `create_engine` makes it."""
    for name in names:
        engine = create_engine(url.set(database=name))
        with engine.connect() as connection:
            connection.execute(text(STATEMENT)).scalar_one()
        engine.dispose()


def raw(url: URL, names: Sequence[str]) -> None:
    """The driver alone, one connection per tenant, eight threads."""
    waiting = iter(names)
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                name = next(waiting, None)
            if name is None:
                return
            _visit(url, name)

    threads = [threading.Thread(target=work) for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _visit(url: URL, name: str) -> None:
    connection = pymysql.connect(
        host=url.host,
        port=url.port or 0,
        user=url.username,
        password=url.password or "",
        database=name,
        ssl_disabled=True,
    )
    with connection.cursor() as cursor:
        cursor.execute(STATEMENT)
        cursor.fetchone()
    connection.commit()
    connection.close()


LOOPS: dict[str, Callable[[URL, Sequence[str]], None]] = {"classic": classic, "raw": raw}


def main(name: str, tenants: str, url: str) -> None:
    """Run one loop over as many tenants as asked."""
    names = [f"bench_{number:04d}" for number in range(int(tenants))]
    started, cpu = time.monotonic(), time.process_time()
    LOOPS[name](make_url(url), names)
    print(time.monotonic() - started, time.process_time() - cpu)


if __name__ == "__main__":
    main(*sys.argv[1:])
