"""Shrinks an SQLite file: gives the pages that deleted rows left back to the disk."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine

from ..errors import StoreUnavailableError
from ..runtime.loggers import get_logger
from .database import WRITERS_TURN_S

#: Pages that are given back at a time, while other writers wait.
_PAGES = 256

#: Free pages that are left alone: new rows need some soon.
_KEPT_PAGES = 1024

#: `PRAGMA auto_vacuum` of a file that can give back pages when it is told to.
_INCREMENTAL = 2


def enable(engine: Engine) -> None:
    """Rewrites a file of an early version once, so that it can shrink afterwards. Other writers wait meanwhile."""
    if engine.dialect.name != "sqlite":
        return
    with engine.connect() as connection:
        file: Any = connection.connection.dbapi_connection
        if _read_pragma(file, "auto_vacuum") == _INCREMENTAL:
            return
        try:
            file.execute("VACUUM").close()  # It also applies the mode that this connection asked for.
        except sqlite3.OperationalError as error:
            get_logger(__name__).warning(
                "The database's file cannot shrink yet (%s); run `dramatiq-diag migrate` while no worker runs.", error
            )


def give_back(engine: Engine, *, sleep: Callable[[float], object] = time.sleep) -> None:
    """Gives free pages back to the disk in steps. After each, other writers have their turn, for as long as it took.

    Raises:
      StoreUnavailableError: When the file cannot be written.
    """
    if engine.dialect.name != "sqlite":
        return
    with engine.connect() as connection:
        file: Any = connection.connection.dbapi_connection
        if _read_pragma(file, "auto_vacuum") != _INCREMENTAL:
            return
        try:
            while _read_pragma(file, "freelist_count") > _KEPT_PAGES:
                started_s = time.perf_counter()
                file.executescript(f"PRAGMA incremental_vacuum({_PAGES})")  # `execute` would stop after one page.
                sleep(max(time.perf_counter() - started_s, WRITERS_TURN_S))
            file.execute("PRAGMA wal_checkpoint(PASSIVE)").close()  # The file itself becomes shorter with this.
        except sqlite3.OperationalError as error:
            raise StoreUnavailableError(f"The database cannot be used: {error}") from error


def _read_pragma(file: Any, pragma: str) -> int:
    value: int = file.execute(f"PRAGMA {pragma}").fetchone()[0]
    return value
