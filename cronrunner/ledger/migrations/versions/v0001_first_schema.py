"""The first schema: claims, history, statistics, tenants, and what metrics need."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from cronrunner.ledger.tables import Instant

revision = "0001"
down_revision = None


def _key(length: int) -> sa.types.TypeEngine[str]:
    binary = mysql.VARCHAR(length, collation="utf8mb4_bin")
    return sa.String(length).with_variant(binary, "mysql", "mariadb")


def _row_id() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _long_text() -> sa.types.TypeEngine[str]:
    return sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "attempts",
        sa.Column("run", _key(40), nullable=False),
        sa.Column("job", _key(100), nullable=False),
        sa.Column("tenant", _key(128), nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("outcome", _key(40), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("code", sa.String(length=100), nullable=True),
        sa.Column("started_at", Instant(), nullable=False),
        sa.Column("duration_seconds", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("run", "job", "tenant", "attempt"),
    )
    op.create_table(
        "claims",
        sa.Column("job", _key(100), nullable=False),
        sa.Column("tenant", _key(128), nullable=False),
        sa.Column("slot_key", _key(64), nullable=False),
        sa.Column("run", _key(40), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("state", _key(40), nullable=False),
        sa.Column("outcome", _key(40), nullable=True),
        sa.Column("claimed_at", Instant(), nullable=False),
        sa.Column("closed_at", Instant(), nullable=True),
        sa.PrimaryKeyConstraint("job", "tenant", "slot_key"),
    )
    op.create_index("claims_of_run", "claims", ["run", "state"])
    op.create_table(
        "counters",
        sa.Column("name", _key(100), nullable=False),
        sa.Column("label", _key(100), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", "label"),
    )
    op.create_table(
        "durations",
        sa.Column("job", _key(100), nullable=False),
        sa.Column("bucket", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("executions", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("job", "bucket"),
    )
    op.create_table(
        "executions",
        sa.Column("id", _row_id(), autoincrement=True, nullable=False),
        sa.Column("run", _key(40), nullable=False),
        sa.Column("job", _key(100), nullable=False),
        sa.Column("tenant", _key(128), nullable=False),
        sa.Column("server", _key(40), nullable=False),
        sa.Column("slot", Instant(), nullable=False),
        sa.Column("slot_key", _key(64), nullable=False),
        sa.Column("outcome", _key(40), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("cause", sa.Text(), nullable=True),
        sa.Column("code", sa.String(length=100), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("started_at", Instant(), nullable=False),
        sa.Column("duration_seconds", sa.Double(), nullable=False),
        sa.Column("counters", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("executions_by_outcome", "executions", ["outcome", "started_at"])
    op.create_index("executions_of_job", "executions", ["job", "started_at"])
    op.create_index("executions_of_run", "executions", ["run", "job", "tenant"], unique=True)
    op.create_index("executions_of_tenant", "executions", ["tenant", "started_at"])
    op.create_index("executions_started_at", "executions", ["started_at"])
    op.create_table(
        "prepared",
        sa.Column("job", _key(100), nullable=False),
        sa.Column("slot_key", _key(64), nullable=False),
        sa.Column("value", _long_text(), nullable=False),
        sa.Column("prepared_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("job", "slot_key"),
    )
    op.create_table(
        "runs",
        sa.Column("run", _key(40), nullable=False),
        sa.Column("command", sa.Text(), nullable=False),
        sa.Column("started_at", Instant(), nullable=False),
        sa.Column("finished_at", Instant(), nullable=True),
        sa.Column("scheduled_at", Instant(), nullable=True),
        sa.Column("slot", Instant(), nullable=False),
        sa.Column("slot_key", _key(64), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("boot", sa.String(length=64), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("pid_started", sa.BigInteger(), nullable=False),
        sa.Column("heartbeat_at", Instant(), nullable=False),
        sa.Column("lease_until", Instant(), nullable=False),
        sa.Column("fleet", sa.Boolean(), nullable=False),
        sa.Column("selection", sa.Text(), nullable=False),
        sa.Column("planned", sa.Integer(), nullable=True),
        sa.Column("duplicates", sa.Integer(), nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("discovered", sa.Text(), nullable=True),
        sa.Column("outcomes", sa.Text(), nullable=True),
        sa.Column("errors", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("run"),
    )
    op.create_index("runs_open", "runs", ["exit_code", "finished_at"])
    op.create_index("runs_started_at", "runs", ["started_at"])
    op.create_table(
        "statistics",
        sa.Column("job", _key(100), nullable=False),
        sa.Column("tenant", _key(128), nullable=False),
        sa.Column("succeeded", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("timed_out", sa.BigInteger(), nullable=False),
        sa.Column("stuck", sa.BigInteger(), nullable=False),
        sa.Column("skipped", sa.BigInteger(), nullable=False),
        sa.Column("cancelled", sa.BigInteger(), nullable=False),
        sa.Column("interrupted", sa.BigInteger(), nullable=False),
        sa.Column("tenant_gone", sa.BigInteger(), nullable=False),
        sa.Column("last_outcome", _key(40), nullable=True),
        sa.Column("last_run_at", Instant(), nullable=True),
        sa.Column("last_success_at", Instant(), nullable=True),
        sa.Column("last_duration_seconds", sa.Double(), nullable=True),
        sa.Column("consecutive_failures", sa.Integer(), nullable=False),
        sa.Column("smoothed_seconds", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("job", "tenant"),
    )
    op.create_table(
        "tenants",
        sa.Column("server", _key(40), nullable=False),
        sa.Column("tenant", _key(128), nullable=False),
        sa.Column("first_seen_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("server", "tenant"),
    )
    op.create_index("tenants_by_name", "tenants", ["tenant"])
