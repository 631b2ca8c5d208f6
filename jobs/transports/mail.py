"""A message as an e-mail."""

from __future__ import annotations

import hashlib
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Final
from urllib.parse import quote

from jobs.outbox import is_address
from jobs.transports.contract import Message, Refused

#: Longer ones do not fit into a line of a header.
_ID_LIMIT: Final = 200


def compose(message: Message, *, sender: str, at: datetime) -> EmailMessage:
    """Write a message as an e-mail. Raises ``Refused`` for one that cannot be."""
    if not is_address(message.recipient):
        raise Refused("bad recipient: expected an e-mail address")
    mail = EmailMessage()
    try:
        mail["From"] = sender
        mail["To"] = message.recipient
        # A line break would begin another header.
        mail["Subject"] = " ".join(message.subject.split())
        mail["Date"] = format_datetime(at)
        mail["Message-ID"] = message_id(message.id, sender)
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(message.body)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        # What the parser of headers raises for odd addresses is any of these.
        raise Refused(f"cannot be written as an e-mail ({type(error).__name__})") from error
    return mail


def message_id(name: str, sender: str) -> str:
    """Return the Message-ID of a message: the same at each try, so that a second one is noticed."""
    local = quote(name, safe="")
    if len(local) > _ID_LIMIT:
        local = hashlib.sha256(name.encode()).hexdigest()
    domain = sender.rpartition("@")[2].strip("> ")
    return f"<{local}@{domain or 'localhost'}>"
