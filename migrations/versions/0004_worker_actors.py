"""Which actors worker processes have."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "dramatiq_diag_worker_actors",
        sa.Column("actor_name", sa.String(255), nullable=False),
        sa.Column("queue_name", sa.String(255), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("actor_name", name="pk_dramatiq_diag_worker_actors"),
    )


def downgrade() -> None:
    op.drop_table("dramatiq_diag_worker_actors")
