"""Captures count their runs themselves; there are no permits any more."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("dramatiq_diag_captures", sa.Column("claimed", sa.Integer(), nullable=False, server_default="0"))
    # A run that used a permit has its slot, also one that still waits in a spool to be published.
    op.execute(
        "UPDATE dramatiq_diag_captures SET claimed = (SELECT count(run_id) FROM dramatiq_diag_capture_permits AS permit"
        " WHERE permit.capture_id = dramatiq_diag_captures.capture_id)"
    )
    op.drop_table("dramatiq_diag_capture_permits")
    op.drop_column("dramatiq_diag_captures", "wanted_at")


def downgrade() -> None:
    op.add_column("dramatiq_diag_captures", sa.Column("wanted_at", sa.DateTime(timezone=True)))
    op.create_table(
        "dramatiq_diag_capture_permits",
        sa.Column("capture_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("holder", sa.Uuid()),
        sa.Column("held_until", sa.DateTime(timezone=True)),
        sa.Column("run_id", sa.Uuid()),
        sa.PrimaryKeyConstraint("capture_id", "number", name="pk_dramatiq_diag_capture_permits"),
        sa.ForeignKeyConstraint(
            ["capture_id"],
            ["dramatiq_diag_captures.capture_id"],
            name="fk_dramatiq_diag_capture_permits_capture_id",
            ondelete="CASCADE",
        ),
    )
    # Without permits they would wait for ever.
    op.execute("UPDATE dramatiq_diag_captures SET ended_at = CURRENT_TIMESTAMP WHERE ended_at IS NULL")
    op.drop_column("dramatiq_diag_captures", "claimed")
