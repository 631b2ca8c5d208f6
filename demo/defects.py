"""Defects of a tenant's rows. Those of its database are planted where databases are made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from demo.outside import NO_NUMBER, NO_STATUS
from demo.rows import exchanges, people
from demo.scene import Row, Scene

#: How many times as many rows a large tenant has.
LARGE_SCALE: Final = 50
#: What a failed migration has left out.
MISSING_TABLE: Final = "rate_limits"

_NO_ZONE: Final = "Mars/Olympus_Mons"
_NO_ADDRESS: Final = "nobody at all"


def bad_rows(scene: Scene) -> Mapping[str, list[Row]]:
    """Return rows that no job can use: each names a way in which real data is broken."""
    control = {"control_id": 1, "collected_at": scene.ago(days=1)}
    review = {"left_dataset": "directory", "right_dataset": "payroll", "run_hour": 1,
              "ignore_fields": [], "enabled": True}  # fmt: skip
    user = {"role": "admin", "status": "active", "notify_email": True, "digest": False,
            "created_at": scene.ago(days=90)}  # fmt: skip
    exchange = {"exchange_at": scene.ago(days=-7), "state": "matched"}
    mailbox = {"kind": "mailbox", "provider": "imap", "enabled": True, "state": "ok",
               "failures": 0, "created_at": scene.ago(days=90)}  # fmt: skip
    service = {"kind": "oauth", "enabled": True, "state": "ok", "failures": 0,
               "created_at": scene.ago(days=90), "token_expires_at": scene.at}  # fmt: skip
    first = sum(1 for _ in people.users(scene)) + 1
    notice = {"kind": "mention", "title": "Hello", "body": "Hello", "state": "new",
              "created_at": scene.ago(minutes=5)}  # fmt: skip
    return {
        "control_evidence": [control | {"result": "perhaps"}],
        "uar_comparisons": [review | {"name": "Odd review", "frequency": "fortnightly"}],
        "uar_rows": [{"dataset": "directory", "row_key": "odd", "attrs": ["no", "object"]}],
        "expiring_assets": [
            {"kind": "certificate", "name": "Certificate without a date", "auto_renew": False,
             "currency": NO_NUMBER},
        ],
        "users": [
            user | {"name": "No address", "email": _NO_ADDRESS},
            user | {"name": "No zone", "email": "zone@odd.example", "timezone": _NO_ZONE,
                    "digest": True},
        ],
        "notifications": [notice | {"user_id": first}, notice | {"user_id": first + 1}],
        "exchanges": [
            exchange | {"name": "No zone", "timezone": _NO_ZONE},
            exchange | {"name": "No date", "timezone": "UTC", "state": "completed"},
        ],
        "exchange_participants": [
            {"exchange_id": exchanges.first_reminded(scene), "name": "No address",
             "email": _NO_ADDRESS, "reminder_enabled": True}
        ],
        "integrations": [
            mailbox | {"address": "future@mail.example", "last_ok_at": scene.ago(days=-1)},
            service | {"provider": NO_STATUS},
            service | {"provider": "calendar"},
        ],
    }  # fmt: skip
