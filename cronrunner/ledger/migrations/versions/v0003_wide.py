"""One index of executions in the place of two.

What was done of it by somebody whose command ended meanwhile is not done again: a server makes an
index to its end, and its next version of the ledger is written after that.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Exchange the indexes."""
    found = sa.inspect(op.get_bind()).get_indexes("executions")
    names = {index["name"] for index in found}
    if "executions_of_job_by_outcome" not in names:
        columns = ["job", "outcome", "started_at"]
        op.create_index("executions_of_job_by_outcome", "executions", columns)
    for old in ("executions_of_job", "executions_by_outcome"):
        if old in names:
            op.drop_index(old, "executions")
