"""Gives transactions on the database. It is opened when it is first needed, and again after a fault."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import Engine, event, select, update
from sqlalchemy.orm import ORMExecuteState, Session

from ..errors import SchemaError, StoreUnavailableError
from ..settings import Settings
from .clock import Clock
from .database import make_engine, replace_when_changed, translated
from .migration import check_schema, migrate
from .models import StoreState

#: For so many seconds a schema that was checked is taken for unchanged.
_CHECKED_FOR_S = 60.0


class _Session(Session):
    """A session of which no object is used after a statement has changed its row."""


@event.listens_for(_Session, "do_orm_execute")
def _leave_objects_alone(state: ORMExecuteState) -> None:
    """Spares SQLAlchemy the search for the objects of changed rows."""
    state.update_execution_options(synchronize_session=False)


class Transactions:
    """Gives transactions on the database of the settings. Threads may share one object.

    Parameters:
      settings: The settings.
      clock: Gives seconds that only grow.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings
        self._clock = clock
        self._lock = threading.RLock()
        self._engine: Engine | None = None
        self._faults = 0
        "How often `reopen` was called."
        self._checked_at: float | None = None
        "When the schema was found to be the one needed."

    @property
    def engine(self) -> Engine:
        """The engine. Raises: NotInstalledError when the database's driver is missing."""
        if (made := self._engine) is not None:
            return made
        with self._lock:
            if self._engine is None:
                self._engine = make_engine(self.settings)
                replace_when_changed(self._engine, "generation", lambda: self._faults)
            return self._engine

    def open_database(self) -> None:
        """Checks the schema at most once a minute; an SQLite file in the data dir is made, or migrated.

        So a process that goes on notices a migration to a schema that its version must not write to.

        Raises:
          NotInstalledError: When the database's driver is missing.
          SchemaError: When the schema is not the one needed.
          StoreUnavailableError: When the database cannot be used.
        """
        checked_at = self._checked_at
        if checked_at is not None and self._clock() - checked_at < _CHECKED_FOR_S:
            return
        # Only the first check is waited for: where the database hangs, threads would wait one after the other.
        if not self._lock.acquire(blocking=checked_at is None):
            return
        try:
            if self._checked_at is not None and self._checked_at != checked_at:
                return
            try:
                check_schema(self.engine)
            except (SchemaError, StoreUnavailableError):  # The second while there is no data dir yet.
                if not self.settings.migrates_itself:
                    raise
                migrate(self.settings)
            except OSError as error:  # As when the process has no descriptor left.
                raise StoreUnavailableError(f"The database cannot be opened: {error}") from error
            self._checked_at = self._clock()
        finally:
            self._lock.release()

    def reopen(self) -> None:
        """Opens the database again before its next use: after a fault the schema may not be what it was.

        Its connections are made anew as well: after a failover they may lead to a server that is read-only from now on.
        """
        with self._lock:
            self._checked_at = None
            self._faults += 1

    def close(self) -> None:
        with self._lock:
            if self._engine is not None:
                self._engine.dispose()

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A transaction: committed at the end, rolled back on an error; driver errors come out translated.

        Raises:
          StoreError: As `open_database`, or when the database refuses something.
        """
        self.open_database()
        with translated(), _Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def exclusive(self) -> Iterator[Session]:
        """A transaction during which nothing is published; keep it short."""
        with self.session() as session:
            if self.engine.dialect.name == "sqlite":
                session.execute(update(StoreState).values(id=StoreState.id))  # Takes the one write lock.
            else:
                session.execute(select(StoreState.id).with_for_update())
            yield session

    @contextmanager
    def snapshot(self) -> Iterator[Session]:
        """A transaction that reads all as it was when it began, while others write."""
        with self.session() as session:
            if self.engine.dialect.name == "sqlite":
                session.connection().exec_driver_sql("BEGIN")  # The driver begins none for statements that only read.
            else:
                session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            yield session

    def now(self) -> datetime:
        """Returns: The time by the database's clock."""
        with self.session() as session:
            return Clock(session).read()
