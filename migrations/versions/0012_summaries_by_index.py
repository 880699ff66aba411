"""Stored runs that failed are counted; the largest peak of an actor and the beginning of task ids have an index."""

from alembic import op

revision = "0012"
down_revision = "0010"
branch_labels = None
depends_on = None

_COUNTERS = "dramatiq_diag_counters"
_RUNS = "dramatiq_diag_task_runs"
_INDEX = "ix_dramatiq_diag_task_runs_actor_name_peak_rss_bytes"
_BEGINNINGS = "ix_dramatiq_diag_task_runs_task_id_beginning"


def upgrade() -> None:
    op.create_index(_INDEX, _RUNS, ["actor_name", "peak_rss_bytes"])
    if op.get_bind().dialect.name == "postgresql":
        # Not of whole ids: any string is one, and an index entry has a limit. With the usual 100 statistics the planner
        # takes all beginnings of a thousandth of the ids or less for equally frequent.
        op.execute(f"CREATE INDEX {_BEGINNINGS} ON {_RUNS} (substr(task_id, 1, 64) text_pattern_ops)")
        op.execute(f"ALTER INDEX {_BEGINNINGS} ALTER COLUMN 1 SET STATISTICS 1000")
    op.execute(
        f"INSERT INTO {_COUNTERS} (actor_name, queue_name, series, label, value)"
        f" SELECT actor_name, '', 'stored_failed_runs', '', count(*) FROM {_RUNS}"
        " WHERE status IN ('failed', 'interrupted') GROUP BY actor_name"
    )


def downgrade() -> None:
    op.drop_index(_INDEX, _RUNS)
    op.execute(f"DROP INDEX IF EXISTS {_BEGINNINGS}")
    op.execute(f"DELETE FROM {_COUNTERS} WHERE series = 'stored_failed_runs'")
