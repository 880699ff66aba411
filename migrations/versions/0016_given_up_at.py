"""When the cleanup ended a run whose worker was not heard of any more."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_RUNS = "dramatiq_diag_task_runs"


def upgrade() -> None:
    op.add_column(_RUNS, sa.Column("given_up_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    op.drop_column(_RUNS, "given_up_at")
