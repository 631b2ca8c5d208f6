"""A loop with the C client library alone, which gives Python's lock up in each call."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from ctypes.util import find_library
from functools import cache

from sqlalchemy import URL

from benchmarks.jobs import STATEMENT
from benchmarks.spreading import spread

_POINTER, _TEXT, _NUMBER = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_ulong
#: Name -> what it returns, and what it takes.
_FUNCTIONS = {
    "mysql_init": (_POINTER, [_POINTER]),
    "mysql_real_connect": (
        _POINTER,
        [_POINTER, _TEXT, _TEXT, _TEXT, _TEXT, ctypes.c_uint, _TEXT, _NUMBER],
    ),
    "mysql_error": (_TEXT, [_POINTER]),
    "mysql_real_query": (ctypes.c_int, [_POINTER, _TEXT, _NUMBER]),
    "mysql_store_result": (_POINTER, [_POINTER]),
    "mysql_fetch_row": (_POINTER, [_POINTER]),
    "mysql_free_result": (None, [_POINTER]),
    "mysql_close": (None, [_POINTER]),
    "mysql_thread_init": (ctypes.c_char, []),
    "mysql_thread_end": (None, []),
}


def is_there() -> bool:
    """Tell whether this machine has the library."""
    return find_library("mariadb") is not None


def connecting(url: URL, names: Sequence[str], threads: int) -> None:
    """Connect for each tenant."""
    library = _library()
    where = [(each or "").encode() for each in (url.host, url.username, url.password)]
    statement = STATEMENT.encode()

    def work(names: Iterator[str]) -> None:
        library.mysql_thread_init()
        for name in names:
            session = library.mysql_init(None)
            connected = library.mysql_real_connect(
                session, *where, name.encode(), url.port or 0, None, 0
            )
            if not connected or library.mysql_real_query(session, statement, len(statement)):
                raise RuntimeError(library.mysql_error(session).decode())
            result = library.mysql_store_result(session)
            library.mysql_fetch_row(result)
            library.mysql_free_result(result)
            library.mysql_close(session)
        library.mysql_thread_end()

    spread(names, threads, work)


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(find_library("mariadb"))
    for name, (returned, taken) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = returned, taken
    return library
