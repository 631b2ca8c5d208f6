"""Messages that a test looks at, and servers that do what a test wants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from jobs.transports.contract import Message, Settings

#: What was sent in this process, in order; a test empties it.
SENT: Final[list[Message]] = []
#: Recipient -> what happens to the next messages to it, in order: an error, or something to call.
NEXT: Final[dict[str, list[Exception | Callable[[], None]]]] = {}


class Fake:
    """Keeps messages in memory."""

    def __init__(self, settings: Settings) -> None:
        self._clock = settings.clock

    def send(self, message: Message, *, timeout_seconds: float) -> None:
        """Keep a message; see ``Transport``."""
        del timeout_seconds
        if planned := NEXT.get(message.recipient):
            event = planned.pop(0)
            if isinstance(event, Exception):
                raise event
            event()
        SENT.append(message)

    def close(self) -> None:
        """Nothing is open."""
