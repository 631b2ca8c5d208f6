"""Pauses, jobs that were seen, and what is known of pairs that fail, overlap or are quarantined."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from cronrunner.ledger.tables import Instant

revision = "0002"
down_revision = "0001"


def _key(length: int) -> sa.types.TypeEngine[str]:
    binary = mysql.VARCHAR(length, collation="utf8mb4_bin")
    return sa.String(length).with_variant(binary, "mysql", "mariadb")


def upgrade() -> None:
    """Add the columns and tables."""
    for column in (
        sa.Column("overlaps_in_a_row", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("failures_apart", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("quarantined_at", Instant(), nullable=True),
        sa.Column("probed_at", Instant(), nullable=True),
        sa.Column("code_digest", sa.String(length=64), nullable=True),
    ):
        op.add_column("statistics", column)
    op.create_table(
        "pauses",
        sa.Column("job", _key(100), nullable=False),
        sa.Column("tenant", _key(128), nullable=False),
        sa.Column("server", _key(40), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("paused_at", Instant(), nullable=False),
        sa.Column("until", Instant(), nullable=True),
        sa.PrimaryKeyConstraint("job", "tenant", "server"),
    )
    op.create_table(
        "seen_jobs",
        sa.Column("job", _key(100), nullable=False),
        sa.Column("first_seen_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("job"),
    )
