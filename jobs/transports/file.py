"""Files instead of messages, for a fleet that is to send nothing yet."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from tempfile import NamedTemporaryFile
from urllib.parse import quote

from jobs.outbox import is_address
from jobs.transports.contract import Failed, Message, Settings
from jobs.transports.mail import compose


class Folder:
    """Keeps each message in a file named after its id: sent twice, it is there once.

    An e-mail is an ``.eml`` file, which mail programs open; anything else is JSON.
    """

    def __init__(self, settings: Settings) -> None:
        self._folder = Path(settings.options["folder"])
        self._sender = settings.options["mail_from"] or "cronrunner@localhost"
        self._clock = settings.clock

    def send(self, message: Message, *, timeout_seconds: float) -> None:
        """Write a message; see ``Transport``."""
        del timeout_seconds
        tenant = quote(message.id.partition("/")[0], safe="")
        name = hashlib.sha256(message.id.encode()).hexdigest()[:32]
        if is_address(message.recipient):
            mail = compose(message, sender=self._sender, at=self._clock())
            content, ending = mail.as_bytes(), "eml"
        else:
            content, ending = _document(message), "json"
        try:
            _write(self._folder / tenant / f"{name}.{ending}", content)
        except OSError as error:
            text = error.strerror or type(error).__name__
            raise Failed(f"cannot be written: {text}", pauses=True) from error

    def close(self) -> None:
        """Nothing is open."""


def _document(message: Message) -> bytes:
    document = {
        "id": message.id,
        "recipient": message.recipient,
        "subject": message.subject,
        "body": message.body,
        "payload": message.payload,
    }
    return json.dumps(document, ensure_ascii=False, indent=2).encode()


def _write(path: Path, content: bytes) -> None:
    """Write a file that is there as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
        file.write(content)
    os.replace(file.name, path)  # noqa: PTH105 - of a name, not of a path
