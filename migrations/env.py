"""Runs the migrations on the connection that the caller hands over, or on the one of the settings."""

from alembic import context

from dramatiq_diag.settings import Settings
from dramatiq_diag.store.adoption import PREFIX, VERSION_TABLE
from dramatiq_diag.store.database import make_engine
from dramatiq_diag.store.models import Base

#: PostgreSQL alone has it, so the models do not.
_BEGINNINGS = "ix_dramatiq_diag_task_runs_task_id_beginning"


def is_ours(name, kind, _parents) -> bool:
    if kind == "index" and name == _BEGINNINGS:
        return False
    return kind != "table" or name.startswith(PREFIX)  # An application may have tables in the same database.


def run(connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        include_name=is_ours,
        version_table=VERSION_TABLE,
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


connection = context.config.attributes.get("connection")
if connection is not None:
    run(connection)
else:
    with make_engine(Settings()).begin() as connection:
        run(connection)
