"""Which blob directory was claimed for this database."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("dramatiq_diag_store_state", sa.Column("blob_root_id", sa.Uuid()))


def downgrade() -> None:
    op.drop_column("dramatiq_diag_store_state", "blob_root_id")
