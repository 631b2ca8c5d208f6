"""What a job has said of an execution."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column, unless a command that ended meanwhile has."""
    columns = sa.inspect(op.get_bind()).get_columns("executions")
    if "note" not in {column["name"] for column in columns}:
        op.add_column("executions", sa.Column("note", sa.Text(), nullable=True))
