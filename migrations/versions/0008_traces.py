"""The trace that a run is part of."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_TABLE = "dramatiq_diag_task_runs"
_INDEX = f"ix_{_TABLE}_trace_id_started_at_run_id"


def upgrade() -> None:
    op.add_column(_TABLE, sa.Column("trace_id", sa.String(32)))
    op.add_column(_TABLE, sa.Column("span_id", sa.String(16)))
    known = sa.text("trace_id IS NOT NULL")
    op.create_index(
        _INDEX, _TABLE, ["trace_id", "started_at", "run_id"], postgresql_where=known, sqlite_where=known
    )


def downgrade() -> None:
    op.drop_index(_INDEX, _TABLE)
    op.drop_column(_TABLE, "span_id")
    op.drop_column(_TABLE, "trace_id")
