"""The proof that a server's reset makes a session as good as new.

Between us and the server there may be a proxy that answers a reset without passing it on, or
that has its own idea of a session; the server may have an ``init_connect`` which a reset does not
run again. So every kind of state is planted once, and what is found after the reset is compared
with what a new session has. What the user may not plant, no job can plant either.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import pymysql
from pymysql.constants import SERVER_STATUS

#: Variables that differ from one moment to the next, or from one session to the next, by nature.
_VOLATILE: Final = frozenset({
    "error_count", "gtid_seq_no", "identity", "insert_id", "last_gtid", "last_insert_id",
    "proxy_user", "pseudo_thread_id", "rand_seed1", "rand_seed2", "statement_id", "timestamp",
    "warning_count",
})  # fmt: skip

_NAME: Final = "cronrunner_reset"

#: Each is tried by itself: servers know some of them, and allow some of them.
_VARIABLES: Final = (
    "sql_mode = ''",
    "time_zone = '+03:17'",
    "character_set_client = latin1",
    "character_set_results = latin1",
    "collation_connection = latin1_bin",
    "autocommit = 1",
    "foreign_key_checks = 0",
    "unique_checks = 0",
    "sql_safe_updates = 1",
    "group_concat_max_len = 7",
    "lock_wait_timeout = 7",
    "innodb_lock_wait_timeout = 7",
    "wait_timeout = 77",
    "sql_select_limit = 7",
    "max_statement_time = 77",
    "max_execution_time = 77",
    "TRANSACTION ISOLATION LEVEL READ UNCOMMITTED",
    "TRANSACTION READ ONLY",
)


def residue(session: Any, renew: Callable[[], Any]) -> list[str]:  # noqa: ANN401 - pymysql.Connection
    """Plant state in a new session, renew it, and say what is left; see ``DatabaseKind``."""
    probe = f"{_NAME}_{secrets.token_hex(4)}"
    before = _facts(session)
    _plant(session, probe)
    renewed = renew()
    in_transaction = renewed.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS
    left = [*_left(renewed, probe), *_differences(before, _facts(renewed))]
    return ["an open transaction", *left] if in_transaction else left


def _facts(session: Any) -> Mapping[str, Any]:  # noqa: ANN401 - as above
    found = {f"@@{name}": value for name, value in _rows(session, "SHOW SESSION VARIABLES")}
    for name in _VOLATILE:
        found.pop(f"@@{name}", None)
    found["database"] = _value(session, "SELECT DATABASE()")
    with suppress(pymysql.Error):
        found["role"] = _value(session, "SELECT CURRENT_ROLE()")
    session.rollback()
    return found


def _plant(session: Any, probe: str) -> None:  # noqa: ANN401 - as above
    statements = [
        f"CREATE TEMPORARY TABLE {probe} (id INT)",
        f"SET @{probe} = 1",
        *(f"SET SESSION {assignment}" for assignment in _VARIABLES),
        f"PREPARE {probe} FROM 'SELECT 1'",
        f"SELECT GET_LOCK('{probe}', 0)",
        "SELECT LAST_INSERT_ID(7)",
        *_other_roles(session),
        "USE information_schema",
        "START TRANSACTION",
    ]
    for statement in statements:
        # What the server does not know, or does not allow, cannot be left behind by a job.
        with suppress(pymysql.err.MySQLError):
            _rows(session, statement)


def _other_roles(session: Any) -> list[str]:  # noqa: ANN401 - as above
    with suppress(pymysql.Error):
        roles = _rows(session, "SELECT DISTINCT role_name FROM information_schema.applicable_roles")
        return ["SET ROLE NONE", *(f"SET ROLE `{role}`" for (role,) in roles)]
    return []


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    names = before.keys() | after.keys()
    return sorted(name for name in names if before.get(name) != after.get(name))


def _left(session: Any, probe: str) -> list[str]:  # noqa: ANN401 - as above
    """Return what is there that a new session does not have."""
    checks: dict[str, Callable[[], bool]] = {
        "a user variable": lambda: _value(session, f"SELECT @{probe}") is not None,
        "the last insert id": lambda: bool(_value(session, "SELECT LAST_INSERT_ID()")),
        "a named lock": lambda: _value(session, f"SELECT IS_USED_LOCK('{probe}')") is not None,
        "a temporary table": lambda: _works(session, f"SELECT 1 FROM {probe}"),  # noqa: S608 - our own
        "a prepared statement": lambda: _works(session, f"EXECUTE {probe}"),
    }
    return [name for name, is_there in checks.items() if is_there()]


def _works(session: Any, statement: str) -> bool:  # noqa: ANN401 - as above
    try:
        _rows(session, statement)
    except pymysql.err.MySQLError:
        return False
    return True


def _value(session: Any, statement: str) -> Any:  # noqa: ANN401 - as above
    return _rows(session, statement)[0][0]


def _rows(session: Any, statement: str) -> Any:  # noqa: ANN401 - as above
    with session.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall()
