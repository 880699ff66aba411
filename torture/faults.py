"""What befalls workers and store, in an order that the seed decides."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from .recurring import Recurring
from .servers import PostgresServer

Fault = Callable[[Random], None]


class Faults(Recurring):
    """One fault after the other.

    Parameters:
      kinds: The faults.
      pause_s: The shortest and the longest time between two, in seconds.
      chance: Decides which and when.
    """

    def __init__(self, kinds: Sequence[Fault], pause_s: tuple[float, float], chance: Random) -> None:
        super().__init__(self._befall, lambda: chance.uniform(*pause_s))
        self.counts: Counter[str] = Counter()
        self._kinds = kinds
        self._chance = chance

    def _befall(self) -> None:
        kind = self._chance.choice(self._kinds)
        kind(self._chance)
        self.counts[kind.__name__] += 1


class Blobs:
    """The blob directory, which comes and goes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._away = directory.with_name("away")

    def blobs_away(self, chance: Random) -> None:
        """Takes it away for a while."""
        self._directory.rename(self._away)
        time.sleep(chance.uniform(0.5, 8))
        self._away.rename(self._directory)

    def blobs_unmounted(self, chance: Random) -> None:
        """Leaves an empty directory instead, as where a disk is not mounted.

        What was under way may still end up in there; it is no blob, and is published again.

        Raises:
          RuntimeError: When that directory was taken for the store's.
        """
        self._directory.rename(self._away)
        self._directory.mkdir()
        time.sleep(chance.uniform(0.5, 8))
        if (self._directory / ".store-id").exists():
            raise RuntimeError(f"{self._directory} was claimed while the store was away")
        self._directory.rename(self._directory.with_name(f"unmounted-{time.time_ns()}"))
        self._away.rename(self._directory)


class Postgres:
    """The database server, which crashes."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server

    def database_crash(self, chance: Random) -> None:
        """Ends it at once, and starts it again."""
        self._server.crash(chance.uniform(0, 8))


class Sqlite:
    """The database file, which someone else locks."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def database_locked(self, chance: Random) -> None:
        """Holds the lock for longer than a statement waits, or not so long."""
        connection = sqlite3.connect(self._path, timeout=60, isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
        time.sleep(chance.uniform(1, 15))
        connection.execute("ROLLBACK")
        connection.close()
