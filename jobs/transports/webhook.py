"""JSON to a URL, signed as https://www.standardwebhooks.com/ describes it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from datetime import datetime
from typing import Final

from jobs.transports.contract import Message, Settings
from jobs.transports.posting import post

#: The variable that holds the secret, unless the option ``webhook_secret_env`` names another.
SECRET: Final = "WEBHOOK_SECRET"  # noqa: S105 - the name of a variable
_PREFIX: Final = "whsec_"


class Webhook:
    """Posts ``payload``, or subject and body; signed if there is a secret."""

    def __init__(self, settings: Settings) -> None:
        """Raises ``ValueError`` if a secret was named and is not there."""
        self._http = settings.http()
        self._clock = settings.clock
        name = settings.options["webhook_secret_env"]
        secret = settings.secret(name)
        if not secret and name != SECRET:
            msg = f"webhook_secret_env: expected a secret in the environment as {name}, found none"
            raise ValueError(msg)
        self._key = _key(secret)

    def send(self, message: Message, *, timeout_seconds: float) -> None:
        """Send a message; see ``Transport``."""
        document = message.payload
        if document is None:
            document = {"subject": message.subject, "body": message.body}
        body = json.dumps(document).encode()
        headers = {"Idempotency-Key": message.header, "Webhook-Id": message.header}
        if self._key:
            headers |= signature(self._key, message.header, self._clock(), body)
        post(self._http, message.recipient, body, headers, timeout_seconds=timeout_seconds)

    def close(self) -> None:
        """Leave the session to the job."""


def signature(key: bytes, name: str, at: datetime, body: bytes) -> dict[str, str]:
    """Return the headers by which a receiver knows who has sent this, and when."""
    stamp = str(int(at.timestamp()))
    digest = hmac.new(key, f"{name}.{stamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "Webhook-Timestamp": stamp,
        "Webhook-Signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def _key(secret: str) -> bytes:
    """Return the key that a secret stands for. Raises ``ValueError``."""
    if not secret.startswith(_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        msg = f"expected base64 after {_PREFIX} in the webhook's secret"
        raise ValueError(msg) from None
