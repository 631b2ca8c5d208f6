"""The kinds of databases that tenants and the ledger can live on."""

from __future__ import annotations

import re
import traceback
from importlib import import_module
from typing import Final

from sqlalchemy.exc import DBAPIError, StatementError

from cronrunner.databases.base import (
    DatabaseKind,
    Endpoint,
    ErrorFacts,
    ServerParts,
    mask_quoted,
)

__all__ = [
    "KINDS",
    "DatabaseKind",
    "Endpoint",
    "ErrorFacts",
    "ServerParts",
    "describe",
    "facts",
    "kind_of",
]

#: URL scheme (without the driver) -> kind; imported when first used.
KINDS: Final = {
    "mysql": ("cronrunner.databases.mysql", "MySQL"),
    "mariadb": ("cronrunner.databases.mysql", "MySQL"),
    "sqlite": ("cronrunner.databases.sqlite", "SQLite"),
}

#: Text in SQL, from its first apostrophe to its last: a value may hold one that is not escaped.
#: Double quotes hold text for MySQL, and for others names.
_LITERAL: Final = re.compile(r"""'(?:.*'(?!\w)|.*)|"(?:[^"\\]|\\.|"")*(?:"|$)""", re.DOTALL)
#: SQL text shown with an error; the whole statement is in the job's source.
_SQL_LIMIT: Final = 300


def kind_of(scheme: str) -> DatabaseKind:
    """Return the kind for the scheme of a URL. Raises ``KeyError`` for an unknown one."""
    module, name = KINDS[scheme.partition("+")[0]]
    found: DatabaseKind = getattr(import_module(module), name)()
    return found


def facts(error: BaseException) -> ErrorFacts:
    """Say what any exception means, its text free of row values.

    An error that SQLAlchemy wrapped is judged by the driver's error inside. Its statement is
    added with literals masked; bound parameters are never shown.
    """
    inner = error.orig if isinstance(error, DBAPIError) else error
    found = _driver_facts(inner) if isinstance(inner, Exception) else None
    if found is None:
        return ErrorFacts(code=None, text=_plain(error))
    return found


def describe(error: BaseException) -> str:
    """Write an exception in one line, without row values, with its statement if it has one."""
    text = facts(error).text
    statement = error.statement if isinstance(error, StatementError) else None
    if not statement:
        return text
    masked = " ".join(_LITERAL.sub("'?'", statement).split())
    return f"{text} [SQL: {masked[:_SQL_LIMIT]}]"


def _driver_facts(error: Exception) -> ErrorFacts | None:
    """Ask the kind whose driver raised ``error``; a driver not imported raised nothing."""
    # Of the classes as well that a kind, or a job, has derived from the driver's.
    drivers = {each.__module__.partition(".")[0] for each in type(error).__mro__}
    for driver, scheme in (("pymysql", "mysql"), ("sqlite3", "sqlite")):
        if driver in drivers:
            return kind_of(scheme).facts(error)
    return None


def _plain(error: BaseException) -> str:
    # The whole text of a StatementError repeats the statement and, unless hidden, the parameters.
    message = _text_of(error.args[0] if isinstance(error, StatementError) else error)
    if _quotes_values(error):
        message = mask_quoted(" ".join(message.split()))
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _text_of(value: object) -> str:
    """Return the text of an exception, whatever its author has made of ``__str__``."""
    try:
        text = str(value)
    except Exception as error:  # noqa: BLE001 - it is a job's code that runs here
        return f"(its text cannot be had: {type(error).__name__})"
    # What is no text for a database or a terminal, such as a lone surrogate, is written out.
    return text.encode("utf-8", "backslashreplace").decode()


def _quotes_values(error: BaseException) -> bool:
    """Tell whether SQLAlchemy could not take a value, and says which, or raises what says which."""
    # By name: FlushError is the ORM's, which nobody should have to import.
    if isinstance(error, StatementError) or type(error).__name__ == "FlushError":
        return True
    if type(error).__module__ != "builtins" or error.__traceback__ is None:
        return False
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__")).startswith("sqlalchemy.")
