"""Column types that mean the same on every kind of database."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import DateTime, Dialect, String
from sqlalchemy.dialects.mysql import VARCHAR
from sqlalchemy.types import TypeDecorator, TypeEngine

from cronrunner.model import as_utc


class UtcDateTime(TypeDecorator[datetime]):
    """An instant: aware in and out, stored as naive UTC in whole seconds.

    Microseconds are cut, not rounded: MySQL would round them, and a boundary would then fall
    on different sides on different databases. A naive datetime raises ``ValueError``.
    """

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Store in UTC without a zone."""
        del dialect
        return None if value is None else as_utc(value).replace(microsecond=0, tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give back what was stored, as UTC."""
        del dialect
        return None if value is None else value.replace(tzinfo=UTC)


def key_text(length: int) -> TypeEngine[str]:
    """Text that is compared in binary on every database: `Acme` and `acme` differ."""
    binary = VARCHAR(length, collation="utf8mb4_bin")
    return String(length).with_variant(binary, "mysql", "mariadb")
