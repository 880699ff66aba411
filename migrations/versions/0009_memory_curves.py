"""The small memory curve of a run stands in its row."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("dramatiq_diag_task_runs", sa.Column("memory_curve", sa.String(64)))


def downgrade() -> None:
    op.drop_column("dramatiq_diag_task_runs", "memory_curve")
