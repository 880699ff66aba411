"""Pinned runs, tracebacks, and indexes for the lists."""

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_OLD_INDEX = "ix_dramatiq_diag_task_runs_actor_name_started_at_run_id"
_INDEXES = {
    "ix_dramatiq_diag_task_runs_actor_summary": ["actor_name", "started_at", "run_id", "status", "peak_rss_bytes"],
    "ix_dramatiq_diag_task_runs_queue_name_started_at_run_id": ["queue_name", "started_at", "run_id"],
    "ix_dramatiq_diag_task_runs_status_started_at_run_id": ["status", "started_at", "run_id"],
    "ix_dramatiq_diag_task_runs_duration_ms_run_id": ["duration_ms", "run_id"],
    "ix_dramatiq_diag_task_runs_peak_rss_bytes_run_id": ["peak_rss_bytes", "run_id"],
}


def upgrade() -> None:
    op.add_column("dramatiq_diag_task_runs", sa.Column("exception_traceback", sa.Text()))
    op.add_column("dramatiq_diag_task_runs", sa.Column("pinned_at", sa.DateTime(timezone=True)))
    for name, columns in _INDEXES.items():
        op.create_index(name, "dramatiq_diag_task_runs", columns)
    op.drop_index(_OLD_INDEX, "dramatiq_diag_task_runs")


def downgrade() -> None:
    # What was pinned has no expiry: without pins it would stay for ever.
    expires_at = sa.column("expires_at", sa.DateTime(timezone=True))
    artifacts = sa.table("dramatiq_diag_artifacts", sa.column("status"), expires_at)
    pinned = artifacts.c.status.in_(("stored", "partial")) & artifacts.c.expires_at.is_(None)
    op.execute(artifacts.update().where(pinned).values(expires_at=datetime.now(UTC) + timedelta(days=1)))
    op.create_index(_OLD_INDEX, "dramatiq_diag_task_runs", ["actor_name", "started_at", "run_id"])
    for name in _INDEXES:
        op.drop_index(name, "dramatiq_diag_task_runs")
    op.drop_column("dramatiq_diag_task_runs", "pinned_at")
    op.drop_column("dramatiq_diag_task_runs", "exception_traceback")
