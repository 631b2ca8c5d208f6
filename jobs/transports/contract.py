"""What a transport is given, what it does, and how it says that it could not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

if TYPE_CHECKING:
    import requests


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message as it is sent, however often that is tried."""

    #: The same at every try, and no other message of the fleet has it.
    id: str
    recipient: str
    subject: str
    body: str
    payload: Any = None

    @property
    def header(self) -> str:
        """The id as a header can hold it: nothing is changed in one of plain letters."""
        return quote(self.id, safe="/:;,.=+@ ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What transports are made of."""

    options: Mapping[str, Any]
    environ: Mapping[str, str]
    #: Gives a session that is opened when it is first asked for.
    http: Callable[[], requests.Session]
    clock: Callable[[], datetime]

    def secret(self, name: str) -> str:
        """Return the value of a variable, or what is in the file that ``NAME_FILE`` names.

        An empty text if neither is set. Raises ``OSError`` for a file that cannot be read.
        """
        if path := self.environ.get(f"{name}_FILE"):
            return Path(path).read_text(encoding="utf-8").strip()
        return self.environ.get(name, "")


class Transport(Protocol):
    """Sends messages of one channel, one after another."""

    def send(self, message: Message, *, timeout_seconds: float) -> None:
        """Send, or raise ``Refused``, ``Failed`` or ``Throttled``.

        No step waits for a server longer than the timeout.
        """

    def close(self) -> None:
        """Close what is open."""


class Refused(Exception):  # noqa: N818 - what became of the message
    """This message will never be taken. The text names no secret."""


class Failed(Exception):  # noqa: N818 - what became of the message
    """It may go better later. The text names no secret."""

    def __init__(self, text: str, *, pauses: bool = False) -> None:
        """``pauses``: the server is gone, or silent, and should be left in peace for a while."""
        super().__init__(text)
        self.pauses = pauses


class Throttled(Exception):  # noqa: N818 - what became of the message
    """The server has asked for a pause. It is no fault of the message."""

    def __init__(self, retry_after: timedelta) -> None:
        super().__init__("the server asked for a pause")
        self.retry_after = retry_after
