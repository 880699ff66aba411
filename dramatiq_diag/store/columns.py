"""Defines the types of columns: moments in UTC, and texts that every database takes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime, Dialect, String, Text
from sqlalchemy.types import TypeDecorator

from .values import clean_text


class UtcDateTime(TypeDecorator[datetime]):
    """Aware datetimes in UTC, on databases with and without time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime cannot be stored")
        return value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        moment: datetime = value
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class CleanText(TypeDecorator[str]):
    """Text that `clean_text` makes fit for every database, also in a comparison.

    It is cut at *cut* characters; the column has a *length* or none.
    """

    impl: Any = Text
    cache_ok = True

    def __init__(self, cut: int | None = None, length: int | None = None) -> None:
        super().__init__()
        self.cut = cut
        self.length = length
        self.impl = Text() if length is None else String(length)

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else clean_text(value, self.cut)


#: A name, as of an actor; the length of its column.
NAME_LENGTH = 255
Name = CleanText(NAME_LENGTH, NAME_LENGTH)
