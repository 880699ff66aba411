"""Runs, artifacts and stored bytes are counted, workers report themselves, a run has its time in the queue."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_COUNTERS = "dramatiq_diag_counters"
_WORKERS = "dramatiq_diag_workers"
_RUNS = "dramatiq_diag_task_runs"
_LIVE = "artifact.status IN ('stored', 'partial')"


def upgrade() -> None:
    op.add_column(_RUNS, sa.Column("queue_wait_ms", sa.Float()))
    op.create_table(
        _COUNTERS,
        sa.Column("actor_name", sa.String(255), nullable=False),
        sa.Column("queue_name", sa.String(255), nullable=False),
        sa.Column("series", sa.String(32), nullable=False),
        sa.Column("label", sa.String(64), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("exemplar_run_id", sa.Uuid()),
        sa.Column("exemplar_trace_id", sa.String(32)),
        sa.Column("exemplar_value", sa.Float()),
        sa.Column("exemplar_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("actor_name", "queue_name", "series", "label", name=f"pk_{_COUNTERS}"),
    )
    op.create_table(
        _WORKERS,
        sa.Column("worker_id", sa.Uuid(), nullable=False),
        sa.Column("hostname", sa.String(255), nullable=False),
        sa.Column("pid", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.String(255), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("gone_at", sa.DateTime(timezone=True)),
        sa.Column("spool_bytes", sa.BigInteger(), nullable=False),
        sa.Column("unpublished_since", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("worker_id", name=f"pk_{_WORKERS}"),
    )
    # What is stored now. The counters of what has happened begin with 0.
    columns = f"INSERT INTO {_COUNTERS} (actor_name, queue_name, series, label, value)"
    op.execute(
        f"{columns} SELECT actor_name, '', 'stored_runs', '', count(*) FROM {_RUNS} WHERE status <> 'running'"
        " GROUP BY actor_name"
    )
    for series, amount in (("stored_artifacts", "count(*)"), ("stored_bytes", "sum(coalesce(artifact.size_bytes, 0))")):
        op.execute(
            f"{columns} SELECT run.actor_name, '', '{series}', artifact.name, {amount}"
            f" FROM dramatiq_diag_artifacts AS artifact JOIN {_RUNS} AS run ON run.run_id = artifact.run_id"
            f" WHERE {_LIVE} GROUP BY run.actor_name, artifact.name"
        )


def downgrade() -> None:
    op.drop_table(_WORKERS)
    op.drop_table(_COUNTERS)
    op.drop_column(_RUNS, "queue_wait_ms")
