"""Two indexes for the lists of one actor: its slowest runs, and its runs that did not succeed."""

from alembic import op

from dramatiq_diag.store.online_indexes import OnlineIndex, make

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_RUNS = "dramatiq_diag_task_runs"
ONLINE_INDEXES = (
    OnlineIndex(f"ix_{_RUNS}_actor_name_duration_ms_run_id", _RUNS, ("actor_name", "duration_ms", "run_id")),
    OnlineIndex(
        f"ix_{_RUNS}_actor_not_succeeded",
        _RUNS,
        ("actor_name", "status", "started_at", "run_id"),
        "status <> 'succeeded'",
    ),
)


def upgrade() -> None:
    for index in ONLINE_INDEXES:
        make(op.get_bind(), index)


def downgrade() -> None:
    for index in ONLINE_INDEXES:
        op.drop_index(index.name, index.table)
