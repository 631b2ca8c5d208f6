"""What a server shows of a run, while it lasts and when it has ended."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from tests.servers import MariaDB


@contextmanager
def counting_connections(server: MariaDB, user: str) -> Iterator[list[int]]:
    """Count the connections of a user, 20 times a second."""
    counts: list[int] = []
    ended = threading.Event()

    def count() -> None:
        query = "SELECT COUNT(*) FROM information_schema.processlist WHERE user = %s"
        with closing(server.connect()) as connection, connection.cursor() as cursor:
            while not ended.wait(0.05):
                cursor.execute(query, (user,))
                counts.append(cursor.fetchall()[0][0])

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield counts
    finally:
        ended.set()
        thread.join()


@contextmanager
def watching_statements(server: MariaDB, user: str) -> Iterator[dict[str, list[float]]]:
    """Note when a user's statements are seen on each database, 20 times a second."""
    seen: dict[str, list[float]] = {}
    ended = threading.Event()

    def look() -> None:
        query = (
            "SELECT db FROM information_schema.processlist"
            " WHERE user = %s AND command <> 'Sleep' AND info IS NOT NULL AND db IS NOT NULL"
        )
        with closing(server.connect()) as connection, connection.cursor() as cursor:
            while not ended.wait(0.05):
                cursor.execute(query, (user,))
                for (database,) in cursor.fetchall():
                    seen.setdefault(database, []).append(time.monotonic())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def transactions_left(server: MariaDB, seconds: float = 5.0) -> list[tuple[Any, ...]]:
    """The transactions that stay open; the server ends those of a gone client after a moment."""
    deadline = time.monotonic() + seconds
    while left := server.execute("SELECT trx_id, trx_query FROM information_schema.innodb_trx"):
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return left
