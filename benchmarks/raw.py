"""Loops with PyMySQL alone."""

from __future__ import annotations

import multiprocessing
import ssl
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import pymysql
from pymysql.constants import COMMAND
from sqlalchemy import URL

from benchmarks.jobs import MANY, STATEMENT
from benchmarks.spreading import spread

#: A connection of the driver, whose stubs leave out what is private.
Session: TypeAlias = Any

_PROCESSES = 2
#: There is no name for it in the driver.
_RESET = 0x1F


def connecting(
    url: URL,
    names: Sequence[str],
    threads: int,
    *,
    each: int = 1,
    context: ssl.SSLContext | None = None,
) -> None:
    """Connect for each tenant, and commit after each statement."""

    def work(names: Iterator[str]) -> None:
        for name in names:
            session = connect(url, name, context)
            for _ in range(each):
                _count(session)
                session.commit()
            session.close()

    spread(names, threads, work)


def connecting_for_many(url: URL, names: Sequence[str], threads: int) -> None:
    """Do as much for a tenant as its many jobs do."""
    connecting(url, names, threads, each=MANY)


def encrypting(url: URL, names: Sequence[str], threads: int) -> None:
    """Share what is dear about TLS: the context."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connecting(url, names, threads, context=context)


def forked(url: URL, names: Sequence[str], threads: int) -> None:
    """Share the tenants out to two processes."""
    fork = multiprocessing.get_context("fork")
    processes = [
        fork.Process(target=connecting, args=(url, names[part::_PROCESSES], threads))
        for part in range(_PROCESSES)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode != 0:
            raise RuntimeError(f"a process ended with {process.exitcode}")


def resetting(url: URL, names: Sequence[str], threads: int) -> None:
    """Keep one session in each thread, and renew it for each tenant."""

    def work(names: Iterator[str]) -> None:
        session = connect(url, None)
        for name in names:
            session._execute_command(_RESET, b"")  # noqa: SLF001 - the driver has no other way to it
            session._read_ok_packet()  # noqa: SLF001
            session.select_db(name)
            _count(session)
        session.close()

    spread(names, threads, work)


def pipelining(url: URL, names: Sequence[str], threads: int) -> None:
    """Write the three messages at once, and read their three answers."""

    def work(names: Iterator[str]) -> None:
        session = connect(url, None)
        for name in names:
            messages = [
                bytes([_RESET]),
                bytes([COMMAND.COM_INIT_DB]) + name.encode(),
                bytes([COMMAND.COM_QUERY]) + STATEMENT.encode(),
            ]
            _write(session, messages)
            for _ in messages[:-1]:
                _expect_answer(session)
                session._read_ok_packet()  # noqa: SLF001 - as above
            _expect_answer(session)
            session._read_query_result()  # noqa: SLF001 - as above
        session.close()

    spread(names, threads, work)


def connect(url: URL, database: str | None, context: ssl.SSLContext | None = None) -> Session:
    """Connect without TLS, or with this context of it."""
    encryption: dict[str, Any] = {"ssl_disabled": True} if context is None else {"ssl": context}
    return pymysql.connect(
        host=url.host,
        port=url.port or 0,
        user=url.username,
        password=url.password or "",
        database=database,
        **encryption,
    )


def _count(session: Session) -> None:
    with session.cursor() as cursor:
        cursor.execute(STATEMENT)
        cursor.fetchone()


def _write(session: Session, messages: Sequence[bytes]) -> None:
    # Three bytes of length, and the number of a conversation that begins.
    packets = [len(each).to_bytes(3, "little") + b"\0" + each for each in messages]
    session._write_bytes(b"".join(packets))  # noqa: SLF001 - as above


def _expect_answer(session: Session) -> None:
    session._next_seq_id = 1  # noqa: SLF001 - as above
