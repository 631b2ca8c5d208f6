"""The tables of a tenant's database, as the shipped jobs read and write them.

Codes such as a status are plain strings without a CHECK: the application that owns the tables
adds values without asking the jobs. Instants are UTC; see ``UtcDateTime``.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Date,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects.mysql import LONGTEXT
from sqlalchemy.schema import SchemaItem

from cronrunner import UtcDateTime

#: SQLite numbers rows by itself in an INTEGER primary key only.
BigId: Final = BigInteger().with_variant(Integer(), "sqlite")
#: TEXT of MySQL and MariaDB ends at 64 kB.
LongText: Final = Text().with_variant(LONGTEXT(), "mysql", "mariadb")
#: ``None`` is NULL and not the JSON value ``null``.
Json: Final = JSON(none_as_null=True)

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _table(name: str, *items: SchemaItem) -> Table:
    """Declare a table with an ``id`` that numbers its rows."""
    number = Column("id", BigId, primary_key=True, autoincrement=True)
    kept_in = {"engine": "InnoDB", "charset": "utf8mb4"}
    options: dict[str, Any] = {
        f"{dialect}_{key}": value
        for dialect in ("mysql", "mariadb")
        for key, value in kept_in.items()
    }
    return Table(name, metadata, number, *items, **options)


def _column(name: str, kind: Any, *items: SchemaItem, **options: Any) -> Column[Any]:  # noqa: ANN401 - a type or an instance of one
    """Declare a column that is always there; ``nullable=True`` says otherwise."""
    return Column(name, kind, *items, **{"nullable": False, **options})


def _reference(name: str, to: str, **options: Any) -> Column[Any]:  # noqa: ANN401 - options of a column
    """Declare a column that holds the id of a row of another table."""
    ondelete = options.pop("ondelete", None)
    return _column(name, BigId, ForeignKey(f"{to}.id", ondelete=ondelete), **options)


users: Final = _table(
    "users",
    _column("email", String(254)),
    _column("name", String(200)),
    _column("role", String(20)),  # admin, manager, member
    _column("status", String(20)),  # active, invited, disabled
    _column("timezone", String(64), nullable=True),
    _column("notify_email", Boolean),
    _column("digest", Boolean),
    _column("created_at", UtcDateTime),
    _column("last_login_at", UtcDateTime, nullable=True),
    Index(None, "status", "last_login_at"),
)

auth_tokens: Final = _table(
    "auth_tokens",
    _reference("user_id", "users", nullable=True),
    _column("token_hash", String(64), unique=True),
    _column("purpose", String(20)),
    _column("created_at", UtcDateTime),
    _column("expires_at", UtcDateTime, index=True),
    _column("used_at", UtcDateTime, nullable=True, index=True),
)

user_sessions: Final = _table(
    "user_sessions",
    _reference("user_id", "users"),
    _column("session_key", String(64), unique=True),
    _column("created_at", UtcDateTime, index=True),
    _column("expires_at", UtcDateTime, index=True),
)

rate_limits: Final = _table(
    "rate_limits",
    _column("bucket", String(150)),
    _column("window_start", UtcDateTime),
    _column("hits", Integer),
    _column("expires_at", UtcDateTime, index=True),
    UniqueConstraint("bucket", "window_start"),
)

work_items: Final = _table(
    "work_items",
    _column("kind", String(20)),  # action, case
    _column("title", String(300)),
    _reference("owner_id", "users", nullable=True),
    # An action: created, in_progress, completed, cancelled. A case: open, active, closed.
    _column("status", String(20)),
    _column("due_date", Date, nullable=True),
    _column("is_overdue", Boolean, nullable=True),
    _column("overdue_since", Date, nullable=True),
    _column("opened_at", UtcDateTime),
    _column("closed_at", UtcDateTime, nullable=True),
    _column("updated_at", UtcDateTime),
    Index(None, "kind", "status", "due_date"),
)

framework_controls: Final = _table(
    "framework_controls",
    _column("framework_code", String(40)),
    _column("control_code", String(40)),
    _column("title", String(300)),
    _column("retired", Boolean),
    UniqueConstraint("framework_code", "control_code"),
)

control_evidence: Final = _table(
    "control_evidence",
    _reference("control_id", "framework_controls"),
    _column("result", String(20)),  # pass, warning, fail
    _column("collected_at", UtcDateTime),
    _column("valid_until", Date, nullable=True),
    Index(None, "control_id", "collected_at"),
)

compliance_snapshots: Final = _table(
    "compliance_snapshots",
    _column("slot", UtcDateTime, unique=True),
    _column("statuses", Json),  # {control id: status}
    _column("changes", Json),  # [{control_id, old, new, kind, severity}]
    _column("counts", Json),
)

uar_comparisons: Final = _table(
    "uar_comparisons",
    _column("name", String(200)),
    _column("left_dataset", String(60)),
    _column("right_dataset", String(60)),
    _column("frequency", String(20)),  # daily, weekly, monthly
    _column("run_day", Integer, nullable=True),
    _column("run_hour", Integer),
    _column("ignore_fields", Json),
    _column("enabled", Boolean),
)

uar_rows: Final = _table(
    "uar_rows",
    _column("dataset", String(60), index=True),
    _column("row_key", String(191)),
    _column("attrs", Json),
)

uar_executions: Final = _table(
    "uar_executions",
    _reference("comparison_id", "uar_comparisons"),
    _column("period_key", String(20)),
    _column("slot", UtcDateTime),
    _column("status", String(20)),  # done, failed
    _column("attempts", Integer),
    _column("rows_left", Integer),
    _column("rows_right", Integer),
    _column("findings", Integer),
    _column("error", String(500), nullable=True),
    UniqueConstraint("comparison_id", "period_key"),
)

uar_findings: Final = _table(
    "uar_findings",
    _reference("execution_id", "uar_executions", index=True),
    _column("kind", String(20)),
    _column("row_key", String(191)),
    _column("field", String(100), nullable=True),
    _column("left_value", LongText, nullable=True),
    _column("right_value", LongText, nullable=True),
)

expiring_assets: Final = _table(
    "expiring_assets",
    _column("kind", String(20), index=True),  # subscription, credential, certificate
    _column("name", String(200)),
    _reference("owner_id", "users", nullable=True),
    _column("expires_on", Date, nullable=True),
    _column("expires_at", UtcDateTime, nullable=True),
    _column("auto_renew", Boolean),
    _column("cancelled_at", UtcDateTime, nullable=True),
    _column("amount_minor", BigInteger, nullable=True),
    _column("currency", String(3), nullable=True),
)

outbox: Final = _table(
    "outbox",
    _column("dedupe_key", String(191), unique=True),
    _column("channel", String(20)),  # email, slack, webhook
    _column("recipient", String(500)),
    _column("subject", String(500)),
    _column("body", LongText),
    _column("payload", Json, nullable=True),
    _column("source_job", String(100)),
    _column("status", String(20)),  # pending, sending, sent, dead, cancelled
    _column("attempts", Integer),
    _column("not_before", UtcDateTime),
    _column("claim_token", String(36), nullable=True),
    _column("claimed_until", UtcDateTime, nullable=True),
    _column("sent_at", UtcDateTime, nullable=True),
    _column("last_error", String(500), nullable=True),
    _column("created_at", UtcDateTime),
    Index(None, "status", "not_before"),
)

notifications: Final = _table(
    "notifications",
    _reference("user_id", "users"),
    _column("kind", String(40)),
    _column("title", String(300)),
    _column("body", LongText),
    _column("state", String(20)),  # new, queued, suppressed, expired
    _column("created_at", UtcDateTime),
    _column("read_at", UtcDateTime, nullable=True),
    Index(None, "state", "created_at"),
)

exchange_rates: Final = _table(
    "exchange_rates",
    _column("base", String(3)),
    _column("quote", String(3)),
    _column("rate_date", Date),
    _column("rate_e8", BigInteger),  # the rate times 10^8
    _column("source", String(60)),
    UniqueConstraint("base", "quote", "rate_date"),
)

audit_log: Final = _table(
    "audit_log",
    _reference("actor_id", "users", nullable=True),
    _column("action", String(100)),
    _column("entity", String(100)),
    _column("details", Json, nullable=True),
    _column("created_at", UtcDateTime, index=True),
)

archived_records: Final = _table(
    "archived_records",
    _column("source_table", String(64)),
    _column("source_id", BigInteger),
    _column("record_at", UtcDateTime, index=True),
    _column("data", Json),
    _column("archived_at", UtcDateTime),
    UniqueConstraint("source_table", "source_id"),
)

metric_values: Final = _table(
    "metric_values",
    _column("metric", String(100)),
    _column("bucket", String(20)),  # an ISO date, or `current`
    _column("value", Json),
    _column("as_of", UtcDateTime),
    UniqueConstraint("metric", "bucket"),
)

reports: Final = _table(
    "reports",
    _column("kind", String(60)),
    _column("period_key", String(40)),
    _column("slot", UtcDateTime),
    _column("summary", Json),
    _column("body", LongText),
    _column("created_at", UtcDateTime, index=True),
    UniqueConstraint("kind", "period_key"),
)

integrations: Final = _table(
    "integrations",
    _column("kind", String(20)),  # oauth, webhook, mailbox
    _column("provider", String(60)),
    _column("address", String(254), nullable=True),
    _column("enabled", Boolean),
    _column("state", String(20)),
    _column("config_version", String(40), nullable=True),
    _column("refresh_url", String(500), nullable=True),
    _column("token_expires_at", UtcDateTime, nullable=True),
    _column("last_ok_at", UtcDateTime, nullable=True),
    _column("failures", Integer),
    _column("last_error", String(500), nullable=True),
    _column("alerted_state", String(20), nullable=True),
    _column("alerted_at", UtcDateTime, nullable=True),
    _column("created_at", UtcDateTime),
)

backups: Final = _table(
    "backups",
    _column("component", String(60)),
    _column("location", String(500)),
    _column("size_bytes", BigInteger),
    _column("sha256", String(64), nullable=True),
    _column("status", String(20)),  # finished, running, failed
    _column("finished_at", UtcDateTime, nullable=True),
    _column("verified_at", UtcDateTime, nullable=True),
    _column("verify_status", String(20), nullable=True),
    _column("verify_detail", String(500), nullable=True),
    Index(None, "component", "finished_at"),
)

exchanges: Final = _table(
    "exchanges",
    _column("name", String(200)),
    _column("timezone", String(64)),
    _column("exchange_at", UtcDateTime),
    _column("state", String(20)),  # draft, open, matched, completed
    _column("completed_at", UtcDateTime, nullable=True),
    _column("reminder_days", Json, nullable=True),
    _reference("admin_id", "users", nullable=True),
    Index(None, "state", "exchange_at"),
)

exchange_participants: Final = _table(
    "exchange_participants",
    _reference("exchange_id", "exchanges", ondelete="CASCADE", index=True),
    _column("name", String(200)),
    _column("email", String(254)),
    _column("reminder_enabled", Boolean),
    _column("withdrawn_at", UtcDateTime, nullable=True),
    _column("giftee_id", BigInteger, nullable=True),
)

job_items: Final = _table(
    "job_items",
    _column("job", String(80)),
    _column("item", String(110)),
    _column("state", String(10)),  # done, error
    _column("slot", UtcDateTime),
    _column("attempts", Integer),
    _column("detail", String(500), nullable=True),
    UniqueConstraint("job", "item"),
)
