"""Which run a run was asked for by, and captures: the next runs of an actor."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_LINKS = ("parent_run_id", "capture_id")


def upgrade() -> None:
    for name in _LINKS:
        op.add_column("dramatiq_diag_task_runs", sa.Column(name, sa.Uuid()))
        known = sa.text(f"{name} IS NOT NULL")
        op.create_index(
            f"ix_dramatiq_diag_task_runs_{name}",
            "dramatiq_diag_task_runs",
            [name],
            postgresql_where=known,
            sqlite_where=known,
        )
    op.create_table(
        "dramatiq_diag_captures",
        sa.Column("capture_id", sa.Uuid(), nullable=False),
        sa.Column("actor_name", sa.String(255), nullable=False),
        sa.Column("diagnostics", sa.JSON(), nullable=False),
        sa.Column("run_limit", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("wanted_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("capture_id", name="pk_dramatiq_diag_captures"),
    )
    op.create_index(
        "ix_dramatiq_diag_captures_ended_at_expires_at", "dramatiq_diag_captures", ["ended_at", "expires_at"]
    )
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


def downgrade() -> None:
    op.drop_table("dramatiq_diag_capture_permits")
    op.drop_table("dramatiq_diag_captures")
    for name in _LINKS:
        op.drop_index(f"ix_dramatiq_diag_task_runs_{name}", "dramatiq_diag_task_runs")
        op.drop_column("dramatiq_diag_task_runs", name)
