"""The release of the application that a run is of."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_TABLE = "dramatiq_diag_task_runs"


def upgrade() -> None:
    op.add_column(_TABLE, sa.Column("release", sa.String(200)))


def downgrade() -> None:
    op.drop_column(_TABLE, "release")
