"""Runs the migrations on the connection that the caller hands over, or on the one of the settings."""

from alembic import context

from dramatiq_diag.database import make_engine
from dramatiq_diag.models import Base
from dramatiq_diag.settings import Settings


def run(connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
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
