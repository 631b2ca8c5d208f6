"""The ledger's tables.

``claims`` arbitrates: one row, one holder. ``executions`` is history and is only ever added
to, but for what ``importing`` says; ``attempts`` lie below it. ``statistics``, ``counters`` and
``durations`` survive the pruning of history, so that metrics and ordering do. Text keys compare
in binary: `Acme` and `acme` are two tenants. The fleet's tenant name is the empty string, since
NULLs would pass every unique key.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Double,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects.mysql import DATETIME, LONGTEXT
from sqlalchemy.types import TypeDecorator, TypeEngine

from cronrunner.databases.columns import UtcDateTime, key_text
from cronrunner.model import Outcome, as_utc

metadata = MetaData()


class Instant(TypeDecorator[datetime]):
    """An instant to the microsecond: aware in and out, stored as naive UTC."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[datetime]:
        """Keep microseconds on MySQL, which drops them unless told not to."""
        if dialect.name in {"mysql", "mariadb"}:
            return dialect.type_descriptor(DATETIME(fsp=6))
        return dialect.type_descriptor(DateTime())

    def bind_processor(self, dialect: Dialect) -> Callable[[datetime | None], Any] | None:
        """Write what SQLAlchemy writes for SQLite, in a third of the time."""
        if dialect.name == "sqlite":
            return _sqlite_text
        return super().bind_processor(dialect)

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Store in UTC without a zone."""
        del dialect
        return None if value is None else as_utc(value).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give back what was stored, as UTC."""
        del dialect
        return None if value is None else value.replace(tzinfo=UTC)


@lru_cache(maxsize=4 * 2000)
def _sqlite_text(value: datetime | None) -> str | None:
    """Write an instant; most are met again: in the next row, or the next table."""
    if value is None:
        return None
    return as_utc(value).replace(tzinfo=None).isoformat(" ", "microseconds")


#: ``<job>:summarize`` of a job name of 80 characters.
JOB = key_text(100)
TENANT = key_text(128)
SLOT_KEY = key_text(64)
RUN = key_text(40)
WORD = key_text(40)
ROW_ID = BigInteger().with_variant(Integer(), "sqlite")
LONG_TEXT = Text().with_variant(LONGTEXT(), "mysql", "mariadb")

runs = Table(
    "runs",
    metadata,
    Column("run", RUN, primary_key=True),
    Column("command", Text, nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("finished_at", Instant),
    Column("scheduled_at", Instant),
    Column("slot", Instant, nullable=False),
    Column("slot_key", SLOT_KEY, nullable=False),
    Column("host", String(255), nullable=False),
    Column("boot", String(64), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("pid_started", BigInteger, nullable=False),
    Column("heartbeat_at", Instant, nullable=False),
    Column("lease_until", Instant, nullable=False),
    # The whole fleet, or a part of it that somebody chose.
    Column("fleet", Boolean, nullable=False),
    # What was asked for, as JSON: enough to ask for it again.
    Column("selection", Text, nullable=False),
    Column("planned", Integer),
    Column("duplicates", Integer),
    Column("exit_code", Integer),
    # Tenants by server, executions by outcome, and errors that belong to no execution, as JSON.
    Column("discovered", Text),
    Column("outcomes", Text),
    Column("errors", Text),
    Index("runs_started_at", "started_at"),
    Index("runs_open", "exit_code", "finished_at"),
)

claims = Table(
    "claims",
    metadata,
    Column("job", JOB, primary_key=True),
    Column("tenant", TENANT, primary_key=True),
    Column("slot_key", SLOT_KEY, primary_key=True),
    # The holder; empty while nobody holds an open claim.
    Column("run", RUN, nullable=False),
    Column("fence", Integer, nullable=False),
    Column("state", WORD, nullable=False),
    Column("outcome", WORD),
    Column("claimed_at", Instant, nullable=False),
    Column("closed_at", Instant),
    Index("claims_of_run", "run", "state"),
)

executions = Table(
    "executions",
    metadata,
    Column("id", ROW_ID, primary_key=True, autoincrement=True),
    Column("run", RUN, nullable=False),
    Column("job", JOB, nullable=False),
    Column("tenant", TENANT, nullable=False),
    Column("server", WORD, nullable=False),
    Column("slot", Instant, nullable=False),
    Column("slot_key", SLOT_KEY, nullable=False),
    Column("outcome", WORD, nullable=False),
    Column("reason", Text),
    Column("error", Text),
    Column("cause", Text),
    Column("code", String(100)),
    Column("attempts", Integer, nullable=False),
    Column("fence", Integer, nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("duration_seconds", Double, nullable=False),
    # A mapping of whole numbers, as JSON.
    Column("counters", Text),
    # What the job has said of it.
    Column("note", Text),
    Index("executions_of_run", "run", "job", "tenant", unique=True),
    Index("executions_started_at", "started_at"),
    # See `history` for what these two are for. There are no more: each is a part of what an
    # execution costs.
    Index("executions_of_job_by_outcome", "job", "outcome", "started_at"),
    Index("executions_of_tenant", "tenant", "started_at"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("run", RUN, primary_key=True),
    Column("job", JOB, primary_key=True),
    Column("tenant", TENANT, primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("outcome", WORD, nullable=False),
    Column("error", Text),
    Column("code", String(100)),
    Column("started_at", Instant, nullable=False),
    Column("duration_seconds", Double, nullable=False),
)

statistics = Table(
    "statistics",
    metadata,
    Column("job", JOB, primary_key=True),
    Column("tenant", TENANT, primary_key=True),
    *(Column(outcome.value, BigInteger, nullable=False) for outcome in Outcome),
    # NULL while the job never ran there: the runner has left it out, or was cut off.
    Column("last_outcome", WORD),
    Column("last_run_at", Instant),
    Column("last_success_at", Instant),
    Column("last_duration_seconds", Double),
    Column("consecutive_failures", Integer, nullable=False),
    Column("smoothed_seconds", Double),
    # Skips in a row because an earlier execution of the pair still went on.
    Column("overlaps_in_a_row", Integer, nullable=False, server_default="0"),
    # Runs in a row in which the pair failed and the job went well elsewhere.
    Column("failures_apart", Integer, nullable=False, server_default="0"),
    Column("quarantined_at", Instant),
    # When a quarantined pair was last tried all the same.
    Column("probed_at", Instant),
    # What the job's code was when the pair was quarantined.
    Column("code_digest", String(64)),
)

#: What is paused: the empty string stands for all jobs, all tenants, all servers.
pauses = Table(
    "pauses",
    metadata,
    Column("job", JOB, primary_key=True),
    Column("tenant", TENANT, primary_key=True),
    Column("server", WORD, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("paused_at", Instant, nullable=False),
    Column("until", Instant),
)

#: No slot is due that came before its job was first seen.
seen_jobs = Table(
    "seen_jobs",
    metadata,
    Column("job", JOB, primary_key=True),
    Column("first_seen_at", Instant, nullable=False),
)

durations = Table(
    "durations",
    metadata,
    Column("job", JOB, primary_key=True),
    # The position in `model.DURATION_BUCKETS`; its length for +Inf.
    Column("bucket", Integer, primary_key=True, autoincrement=False),
    Column("executions", BigInteger, nullable=False),
    Column("seconds", Double, nullable=False),
)

counters = Table(
    "counters",
    metadata,
    Column("name", key_text(100), primary_key=True),
    Column("label", key_text(100), primary_key=True),
    Column("value", Double, nullable=False),
)

tenants = Table(
    "tenants",
    metadata,
    # The source: a server has one.
    Column("server", WORD, primary_key=True),
    Column("tenant", TENANT, primary_key=True),
    Column("first_seen_at", Instant, nullable=False),
    Index("tenants_by_name", "tenant"),
)

prepared = Table(
    "prepared",
    metadata,
    Column("job", JOB, primary_key=True),
    Column("slot_key", SLOT_KEY, primary_key=True),
    Column("value", LONG_TEXT, nullable=False),
    Column("prepared_at", Instant, nullable=False),
)

#: Messages of fleet-scope work; the columns are those of a tenant's `outbox`, so that one job
#: delivers both. The runner itself does nothing with them.
fleet_outbox = Table(
    "fleet_outbox",
    metadata,
    Column("id", ROW_ID, primary_key=True, autoincrement=True),
    Column("dedupe_key", String(191), nullable=False),
    Column("channel", String(20), nullable=False),
    Column("recipient", String(500), nullable=False),
    Column("subject", String(500), nullable=False),
    Column("body", LONG_TEXT, nullable=False),
    Column("payload", JSON(none_as_null=True)),
    Column("source_job", String(100), nullable=False),
    Column("status", String(20), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("not_before", UtcDateTime, nullable=False),
    Column("claim_token", String(36)),
    Column("claimed_until", UtcDateTime),
    Column("sent_at", UtcDateTime),
    Column("last_error", String(500)),
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("dedupe_key", name="fleet_outbox_key"),
    Index("fleet_outbox_due", "status", "not_before"),
)
