"""Counters of runs, the memory story of a death, and windows of the live heap of worker processes."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_RUNS = "dramatiq_diag_task_runs"
_WINDOWS = "dramatiq_diag_heap_windows"

_COLUMNS = (
    ("cpu_ms", sa.Float()),
    ("run_queue_ms", sa.Float()),
    ("gc_ms", sa.Float()),
    ("throttled_ms", sa.Float()),
    ("touched_bytes", sa.BigInteger()),
    ("major_faults", sa.BigInteger()),
    ("memory_role", sa.String(16)),
    ("death_reason", sa.Text()),
    ("worker_id", sa.Uuid()),
)

#: All that a summary of an actor reads.
_SUMMARY = f"ix_{_RUNS}_actor_summary"
_SUMMARIZED_BEFORE = ("actor_name", "started_at", "run_id", "status", "peak_rss_bytes")
_SUMMARIZED = (*_SUMMARIZED_BEFORE, "duration_ms", "queue_wait_ms", "cpu_ms", "touched_bytes")

_SORTED = ("queue_wait_ms", "cpu_ms", "run_queue_ms", "gc_ms", "touched_bytes")


def upgrade() -> None:
    for name, kind in _COLUMNS:
        op.add_column(_RUNS, sa.Column(name, kind))
    for name in _SORTED:
        op.create_index(f"ix_{_RUNS}_{name}_run_id", _RUNS, [name, "run_id"])
    _summarize(_SUMMARIZED)
    op.create_table(
        _WINDOWS,
        sa.Column("window_id", sa.Uuid(), nullable=False),
        sa.Column("worker_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("runs", sa.JSON(), nullable=False),
        sa.Column("looks", sa.Integer(), nullable=False),
        sa.Column("small_bytes", sa.BigInteger(), nullable=False),
        sa.Column("in_use_bytes", sa.BigInteger(), nullable=False),
        sa.Column("free_bytes", sa.BigInteger(), nullable=False),
        sa.Column("rss_bytes", sa.BigInteger()),
        sa.PrimaryKeyConstraint("window_id", name=f"pk_{_WINDOWS}"),
    )
    op.create_index(f"ix_{_WINDOWS}_ended_at", _WINDOWS, ["ended_at"])
    op.create_index(f"ix_{_WINDOWS}_worker_id_number", _WINDOWS, ["worker_id", "number"])


def downgrade() -> None:
    op.drop_table(_WINDOWS)
    _summarize(_SUMMARIZED_BEFORE)
    for name in _SORTED:
        op.drop_index(f"ix_{_RUNS}_{name}_run_id", _RUNS)
    for name, _ in reversed(_COLUMNS):
        op.drop_column(_RUNS, name)


def _summarize(columns: tuple[str, ...]) -> None:
    """Makes the index of summaries anew."""
    op.drop_index(_SUMMARY, _RUNS)
    op.create_index(_SUMMARY, _RUNS, [*columns])
