"""How messages leave: one module for each transport, one contract, and their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from jobs.transports.contract import Settings, Transport
from jobs.transports.fake import Fake
from jobs.transports.file import Folder
from jobs.transports.slack import Slack
from jobs.transports.smtp import Smtp
from jobs.transports.webhook import Webhook

#: Each is made of settings, and raises ``ValueError`` when one that it needs is missing.
TRANSPORTS: Final[Mapping[str, Callable[[Settings], Transport]]] = {
    "file": Folder,
    "smtp": Smtp,
    "slack": Slack,
    "webhook": Webhook,
    "fake": Fake,
}
