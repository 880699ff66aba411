"""Indexes of an actor's slowest runs, of its runs that did not succeed, and of the runs that a run sent, by start."""

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
    OnlineIndex(
        f"ix_{_RUNS}_parent_run_id_started_at_run_id",
        _RUNS,
        ("parent_run_id", "started_at", "run_id"),
        "parent_run_id IS NOT NULL",
    ),
)
_CHILDREN = OnlineIndex(f"ix_{_RUNS}_parent_run_id", _RUNS, ("parent_run_id",), "parent_run_id IS NOT NULL")


def upgrade() -> None:
    for index in ONLINE_INDEXES:
        make(op.get_bind(), index)
    op.drop_index(_CHILDREN.name, _RUNS)


def downgrade() -> None:
    make(op.get_bind(), _CHILDREN)
    for index in ONLINE_INDEXES:
        op.drop_index(index.name, index.table)
