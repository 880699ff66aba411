"""Reads the database's clock, which all processes of a store share; the clocks of their hosts may differ."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, DateTime, func, select, type_coerce
from sqlalchemy.orm import Session

from .columns import UtcDateTime
from .database import dialect_of

#: How SQLAlchemy stores a moment in SQLite; SQLite's clock has milliseconds.
_SQLITE_FORMAT = "%Y-%m-%d %H:%M:%f000"


class Clock:
    """Gives moments for the queries of a transaction. In PostgreSQL the time stands still from its start to its end."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._is_postgresql = dialect_of(session) == "postgresql"

    @property
    def now(self) -> ColumnElement[datetime]:
        """The current time, as an expression."""
        return self.after(0.0)

    def after(self, seconds: float) -> ColumnElement[datetime]:
        """Returns: The time so many seconds from now, as an expression; it has passed if the number is negative."""
        moment: ColumnElement[Any]
        if self._is_postgresql:
            moment = func.now(type_=DateTime(timezone=True)) + timedelta(seconds=seconds)
        else:
            moment = func.strftime(_SQLITE_FORMAT, "now", f"{seconds:+.3f} seconds")
        return type_coerce(moment, UtcDateTime())

    def read(self) -> datetime:
        """Returns: The current time."""
        return self._session.execute(select(self.now)).scalar_one()
