"""Slack, by its incoming webhooks: the recipient of a message is the URL of one."""

from __future__ import annotations

import json

from jobs.transports.contract import Message, Settings
from jobs.transports.posting import post


class Slack:
    """Posts ``payload`` as it is, or subject and body as text."""

    def __init__(self, settings: Settings) -> None:
        self._http = settings.http()

    def send(self, message: Message, *, timeout_seconds: float) -> None:
        """Send a message; see ``Transport``."""
        # Slack itself knows no ids: it may show twice what was sent twice.
        headers = {"Idempotency-Key": message.header}
        document = message.payload
        if document is None:
            heading = f"*{_escaped(message.subject)}*" if message.subject else ""
            document = {"text": "\n".join(filter(None, (heading, _escaped(message.body))))}
        body = json.dumps(document).encode()
        post(self._http, message.recipient, body, headers, timeout_seconds=timeout_seconds)

    def close(self) -> None:
        """Leave the session to the job."""


def _escaped(text: str) -> str:
    """Write what Slack would take for its own: ``<!channel>`` in a title would call everybody."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
