"""What makes a session one that only reads, as its database holds it."""

from __future__ import annotations

import re
from typing import Final

from sqlalchemy import Connection

#: What a statement begins with that reads. The database has the last word; this keeps away what it
#: does not take for a change of data: SET GLOBAL, KILL, FLUSH, CALL, PRAGMA, ATTACH.
_READING: Final = re.compile(
    r"\(*\s*(SELECT|WITH|VALUES|TABLE|SHOW|DESCRIBE|DESC|EXPLAIN)\b", re.IGNORECASE
)
#: `SELECT ... INTO OUTFILE` writes a file at the server. The words alone tell: what a server takes
#: for a blank between them (`/*!*/`, `/*+ */`, `#`) is more than we know.
_INTO: Final = re.compile(r"\b(OUTFILE|DUMPFILE)\b", re.IGNORECASE)


def reads(statement: str) -> bool:
    """Tell whether a statement, without comments, looks like one that only reads."""
    return _READING.match(statement) is not None and _INTO.search(statement) is None


def read_only(connection: Connection, *, most: int) -> None:
    """Let the database refuse every change for the rest of the session.

    It gives no more than ``most`` rows of a SELECT without a LIMIT, where it can be told. Nothing
    may have been executed on the connection yet.
    """
    if connection.dialect.name == "sqlite":
        statements = ["PRAGMA query_only = ON"]
    else:
        statements = [
            # Whatever ends this transaction begins another one that only reads.
            "SET SESSION TRANSACTION READ ONLY",
            f"SET SESSION sql_select_limit = {most}",
            "START TRANSACTION READ ONLY",
        ]
    for statement in statements:
        connection.exec_driver_sql(statement)
