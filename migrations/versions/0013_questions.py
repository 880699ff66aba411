"""Workers say what they execute and are asked questions; artifacts of attachments; runs that are stuck."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_WORKERS = "dramatiq_diag_workers"
_QUESTIONS = "dramatiq_diag_questions"
_RUNS = "dramatiq_diag_task_runs"
_ARTIFACTS = "dramatiq_diag_artifacts"
_INDEX = f"ix_{_ARTIFACTS}_run_id_name"

_REPORTED = (
    ("queues", sa.JSON()),
    ("threads", sa.Integer()),
    ("rss_bytes", sa.BigInteger()),
    ("cpu_s", sa.Float()),
    ("tasks", sa.JSON()),
)


def upgrade() -> None:
    for name, kind in _REPORTED:
        op.add_column(_WORKERS, sa.Column(name, kind))
    op.add_column(_WORKERS, sa.Column("attention", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column(_RUNS, sa.Column("is_stuck", sa.Boolean()))
    op.create_table(
        _QUESTIONS,
        sa.Column("question_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("worker_id", sa.Uuid(), nullable=False),
        sa.Column("task_id", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Uuid()),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("answer", sa.JSON()),
        sa.Column("answered_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("question_id", name=f"pk_{_QUESTIONS}"),
    )
    op.create_index(f"ix_{_QUESTIONS}_worker_id_state", _QUESTIONS, ["worker_id", "state"])
    op.create_index(f"ix_{_QUESTIONS}_expires_at", _QUESTIONS, ["expires_at"])
    op.create_index(f"ix_{_QUESTIONS}_run_id", _QUESTIONS, ["run_id"])
    # The primary key is made from run and name, so that older versions, which still publish, need no unique index.
    op.add_column(_ARTIFACTS, sa.Column("attachment_id", sa.Uuid()))
    op.create_index(f"{_INDEX}_attachment_id", _ARTIFACTS, ["run_id", "name", "attachment_id"], unique=True)
    op.drop_index(_INDEX, _ARTIFACTS)


def downgrade() -> None:
    op.execute(f"DELETE FROM {_ARTIFACTS} WHERE attachment_id IS NOT NULL")
    op.create_index(_INDEX, _ARTIFACTS, ["run_id", "name"], unique=True)
    op.drop_index(f"{_INDEX}_attachment_id", _ARTIFACTS)
    op.drop_column(_ARTIFACTS, "attachment_id")
    op.drop_table(_QUESTIONS)
    op.drop_column(_RUNS, "is_stuck")
    for name in ("attention", *(name for name, _ in reversed(_REPORTED))):
        op.drop_column(_WORKERS, name)
