"""What the collectors of a run took of the task's thread."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("dramatiq_diag_task_runs", sa.Column("collection_ms", sa.Float()))


def downgrade() -> None:
    op.drop_column("dramatiq_diag_task_runs", "collection_ms")
