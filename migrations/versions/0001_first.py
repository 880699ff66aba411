"""Runs, artifacts, and the store's own row."""

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "dramatiq_diag_task_runs",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("task_key", sa.String(32), nullable=False),
        sa.Column("task_id", sa.Text(), nullable=False),
        sa.Column("actor_name", sa.String(255), nullable=False),
        sa.Column("queue_name", sa.String(255), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column("duration_ms", sa.Float()),
        sa.Column("peak_rss_bytes", sa.BigInteger()),
        sa.Column("hostname", sa.String(255), nullable=False),
        sa.Column("pid", sa.BigInteger(), nullable=False),
        sa.Column("exception_type", sa.String(255)),
        sa.Column("exception_message", sa.Text()),
        sa.Column("overlapped_task_ids", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", name="pk_dramatiq_diag_task_runs"),
    )
    op.create_index(
        "ix_dramatiq_diag_task_runs_task_key_started_at_run_id",
        "dramatiq_diag_task_runs",
        ["task_key", "started_at", "run_id"],
    )
    op.create_index("ix_dramatiq_diag_task_runs_started_at_run_id", "dramatiq_diag_task_runs", ["started_at", "run_id"])
    op.create_index(
        "ix_dramatiq_diag_task_runs_actor_name_started_at_run_id",
        "dramatiq_diag_task_runs",
        ["actor_name", "started_at", "run_id"],
    )
    op.create_table(
        "dramatiq_diag_artifacts",
        sa.Column("artifact_id", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("filename", sa.String(255), nullable=False),
        sa.Column("media_type", sa.String(127), nullable=False),
        sa.Column("stored_as", sa.String(255)),
        sa.Column("blob_name", sa.String(64)),
        sa.Column("size_bytes", sa.BigInteger()),
        sa.Column("sha256", sa.String(64)),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("artifact_id", name="pk_dramatiq_diag_artifacts"),
        sa.ForeignKeyConstraint(
            ["run_id"], ["dramatiq_diag_task_runs.run_id"], name="fk_dramatiq_diag_artifacts_run_id", ondelete="CASCADE"
        ),
    )
    op.create_index(
        "ix_dramatiq_diag_artifacts_run_id_name", "dramatiq_diag_artifacts", ["run_id", "name"], unique=True
    )
    op.create_index(
        "ix_dramatiq_diag_artifacts_expires_at",
        "dramatiq_diag_artifacts",
        ["expires_at"],
        postgresql_where=sa.text("status IN ('stored', 'partial')"),
        sqlite_where=sa.text("status IN ('stored', 'partial')"),
    )
    store_state = op.create_table(
        "dramatiq_diag_store_state",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("store_id", sa.Uuid(), nullable=False),
        sa.Column("last_cleanup_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="pk_dramatiq_diag_store_state"),
    )
    op.bulk_insert(store_state, [{"id": 1, "store_id": uuid.uuid4()}])


def downgrade() -> None:
    op.drop_table("dramatiq_diag_store_state")
    op.drop_table("dramatiq_diag_artifacts")
    op.drop_table("dramatiq_diag_task_runs")
