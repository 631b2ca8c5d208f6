"""Messages leave through the ``outbox`` table, in the transaction of the job that writes them.

Another job delivers them. So a job that is rolled back has sent nothing, and one whose slot
is repeated sends nothing twice. What is done once for the fleet has an outbox of its own, in the
ledger's database: it is written when that work has succeeded.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, Table, insert, select

from cronrunner import fleet_outbox
from jobs.schema import outbox
from jobs.wording import shorten

if TYPE_CHECKING:
    from cronrunner import JobContext

SUBJECT_LIMIT: Final = 500
BODY_LIMIT: Final = 1_000_000
#: RFC 5321 lets no longer path through.
ADDRESS_LIMIT: Final = 254


def is_address(text: str) -> bool:
    """Tell whether an e-mail can be addressed to ``text``."""
    local, at, domain = text.partition("@")
    return (
        bool(local and at and domain)
        and "@" not in domain
        and len(text) <= ADDRESS_LIMIT
        and not any(character.isspace() for character in text)
    )


def enqueue(  # noqa: PLR0913, PLR0917 - the parts of a message
    ctx: JobContext,
    key: str,
    channel: str,
    recipient: str,
    subject: str,
    body: str,
    *,
    payload: Mapping[str, Any] | None = None,
    not_before: datetime | None = None,
) -> bool:
    """Queue a message unless one of this ``key`` was ever queued; tell whether it was new.

    A key is made of ids and instants, never of names: MySQL takes ``a`` and ``A`` for equal.
    Raises ``ValueError`` for an e-mail without a usable address.
    """
    if channel == "email" and not is_address(recipient):
        # Without the address itself: what an error says ends up in logs.
        msg = f"expected an e-mail address: one @, no blanks, at most {ADDRESS_LIMIT} characters"
        raise ValueError(msg)
    message = {
        "dedupe_key": key,
        "channel": channel,
        "recipient": recipient,
        "subject": shorten(_without_nul(subject), SUBJECT_LIMIT),
        "body": shorten(_without_nul(body), BODY_LIMIT),
        "payload": payload,
        "source_job": _job_name(ctx),
        "status": "pending",
        "attempts": 0,
        "not_before": not_before or ctx.slot,
        "created_at": ctx.slot,
    }
    if ctx.tenant.name:
        return _insert(ctx.connection, outbox, message)
    return _enqueue_for_fleet(ctx, message)


def _insert(connection: Connection, table: Table, message: Mapping[str, Any]) -> bool:
    """Insert a message whose key is new; tell whether it was."""
    if _is_known(connection, table, message["dedupe_key"]):
        return False
    connection.execute(insert(table).values(message))
    return True


def _is_known(connection: Connection, table: Table, key: str) -> bool:
    known = select(table.c.id).where(table.c.dedupe_key == key)
    return connection.scalar(known) is not None


def _enqueue_for_fleet(ctx: JobContext, message: Mapping[str, Any]) -> bool:
    key = message["dedupe_key"]
    with ctx.fleet_engine.connect() as connection:
        if _is_known(connection, fleet_outbox, key):
            return False
    # Looked at again then: another run may have been faster.
    return ctx.on_success(
        f"outbox:{key}", lambda connection: _insert(connection, fleet_outbox, message)
    )


def _without_nul(text: str) -> str:
    """Drop the one character that databases and mail servers refuse."""
    return text.replace("\0", "")


def _job_name(ctx: JobContext) -> str:
    """Name the job that is running: the key begins with it, and names hold no slash."""
    return ctx.job
