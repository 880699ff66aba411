"""When the cleanup ended a run whose worker was not heard of any more; the CPU time of diagnostics in a process."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_COLUMNS = (
    ("dramatiq_diag_task_runs", "given_up_at", sa.DateTime(timezone=True)),
    ("dramatiq_diag_workers", "diagnostics_cpu_s", sa.Float()),
)


def upgrade() -> None:
    for table, name, kind in _COLUMNS:
        op.add_column(table, sa.Column(name, kind))


def downgrade() -> None:
    for table, name, _ in reversed(_COLUMNS):
        op.drop_column(table, name)
