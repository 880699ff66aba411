"""Transactions on a database that is opened when it is first needed, and again after a fault."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session, sessionmaker

from ..errors import SchemaError, StoreUnavailableError
from ..settings import Settings
from .clock import Clock
from .database import make_engine, renewable, translated
from .migration import check_schema, migrate
from .models import StoreState


class Transactions:
    """Gives transactions on the database of the settings. Threads may share one object.

    Parameters:
      settings: The settings.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = threading.RLock()
        self._engine: Engine | None = None
        self._sessions: sessionmaker[Session] | None = None
        self._renew_connections: Callable[[], None] | None = None
        self._is_checked = False
        "Whether the schema was found to be the one needed."

    @property
    def engine(self) -> Engine:
        """The engine. Raises: NotInstalledError when the database's driver is missing."""
        with self._lock:
            if self._engine is None:
                self._engine = make_engine(self.settings)
                self._renew_connections = renewable(self._engine)
                self._sessions = sessionmaker(self._engine, expire_on_commit=False)
            return self._engine

    def open_database(self) -> None:
        """Checks the schema, unless that was done before; an SQLite file in the data dir is made, or migrated.

        Raises:
          NotInstalledError: When the database's driver is missing.
          SchemaError: When the schema is not the one needed.
          StoreUnavailableError: When the database cannot be used.
        """
        with self._lock:
            if self._is_checked:
                return
            try:
                check_schema(self.engine)
            except (SchemaError, StoreUnavailableError):  # The second while there is no data dir yet.
                if not self.settings.migrates_itself:
                    raise
                migrate(self.settings)
            except OSError as error:  # As when the process has no descriptor left.
                raise StoreUnavailableError(f"The database cannot be opened: {error}") from error
            self._is_checked = True

    def reopen(self) -> None:
        """Opens the database again before its next use: after a fault the schema may not be what it was.

        Its connections are made anew as well: after a failover they may lead to a server that is read-only from now on.
        """
        with self._lock:
            self._is_checked = False
            if self._renew_connections is not None:
                self._renew_connections()

    def close(self) -> None:
        """Closes the connections."""
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
        assert self._sessions is not None
        with translated(), self._sessions.begin() as session:
            yield session

    @contextmanager
    def exclusive(self) -> Iterator[Session]:
        """A transaction during which nothing is published; keep it short."""
        with self.session() as session:
            if self.engine.dialect.name == "sqlite":
                session.execute(update(StoreState).values(id=StoreState.id))  # Takes the write lock, which is one.
            else:
                session.execute(select(StoreState.id).with_for_update())
            yield session

    def now(self) -> datetime:
        """Returns: The time by the database's clock."""
        with self.session() as session:
            return Clock(session).read()
