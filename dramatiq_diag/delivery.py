"""Spool entries -> store: what is published, what cannot be, and what dead workers left."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dramatiq.logging import get_logger

from .bundle import artifact_kinds, read_bundle
from .entry import Entry
from .errors import BlobMissingError, SchemaError, SpoolError, StoreError, StoreMismatchError, StoreUnavailableError
from .spool import Spool, remove_owner
from .store import Bundle, Store

#: Runs published in one transaction.
BATCH_SIZE = 100

#: What the texts of such runs may take in memory together, in bytes; a batch with more is published in parts.
_BATCH_BYTES = 1024**2


@dataclass(kw_only=True)
class Salvaged:
    """What became of the entries of dead workers."""

    recovered_runs: int = 0
    refused_runs: int = 0
    "Entries that could not be published, and stay in the spool."


class Delivery:
    """Publishes entries, and removes them from the spool once they are in the store.

    Parameters:
      spool: Where the entries are.
      opened_store: Gives the store, open. Raises: StoreError.
    """

    def __init__(self, spool: Spool, opened_store: Callable[[], Store]) -> None:
        self.logger = get_logger(__name__, type(self))
        self.spool = spool
        self._opened_store = opened_store
        self.refused: set[uuid.UUID] = set()
        "Entries that are not to be tried again: they cannot be published, or were and cannot be removed."

    def deliver(self, entries: Sequence[Entry]) -> list[Entry]:
        """Publishes entries, in order, and removes them.

        Returns:
          Those that cannot be published, and stay in the spool.

        Raises:
          StoreError: When all of them are to be published again later.
        """
        refused: list[Entry] = []
        read: list[tuple[Entry, Bundle]] = []
        held_bytes = 0
        for entry in entries:
            bundle = self._read(entry, refused)
            if bundle is None:
                continue
            read.append((entry, bundle))
            held_bytes += bundle.held_bytes
            if held_bytes >= _BATCH_BYTES:
                refused += self._publish(read)
                read, held_bytes = [], 0
        return refused + self._publish(read)

    def _publish(self, read: Sequence[tuple[Entry, Bundle]]) -> list[Entry]:
        """Publishes entries that were read, and removes them. As `deliver` otherwise."""
        refused: list[Entry] = []
        if not read:
            return refused
        try:
            self._opened_store().publish([bundle for _, bundle in read])
        except (StoreUnavailableError, StoreMismatchError, SchemaError, BlobMissingError):
            raise
        except (StoreError, OSError, ValueError, ArithmeticError) as error:  # The last ones of what an entry says.
            if len(read) == 1:
                self._refuse(read[0][0], error, refused)
                return refused
            for entry, _ in read:
                refused += self.deliver([entry])
            return refused
        for entry, bundle in read:
            self._discard(entry, bundle)
            self._log(bundle)
        return refused

    def salvage(self, *, until: float | None = None) -> Salvaged:
        """Publishes what dead processes of this disk left, oldest first.

        Parameters:
          until: When to begin with nothing more, by `time.monotonic`; what is left waits for the next salvager.

        Raises:
          StoreError: When the store cannot be used.
          SpoolError: When the spool cannot be read.
        """
        counts = Salvaged()
        for owner in self.spool.dead_owners():
            while entries := self.spool.entries(owner, BATCH_SIZE, but=self.refused):
                if until is not None and time.monotonic() >= until:
                    return counts
                self.logger.info("Salvaging %d runs that a dead worker left in %s.", len(entries), owner)
                refused = len(self.deliver(entries))
                counts.refused_runs += refused
                counts.recovered_runs += len(entries) - refused
            remove_owner(owner)
        return counts

    def _read(self, entry: Entry, refused: list[Entry]) -> Bundle | None:
        try:
            bundle = read_bundle(entry)
        except (SpoolError, OSError) as error:
            self._refuse(entry, error, refused)
            return None
        if bundle is None:
            entry.remove(())
        return bundle

    def _refuse(self, entry: Entry, error: Exception, refused: list[Entry]) -> None:
        refused.append(entry)
        self.refused.add(entry.run_id)
        self.logger.warning("The run %s could not be published and stays in the spool: %s", entry.run_id, error)

    def _discard(self, entry: Entry, bundle: Bundle) -> None:
        try:
            self.spool.discard(entry, artifact_kinds(bundle))
        except OSError as error:
            self.refused.add(entry.run_id)
            self.logger.warning("The spool entry of run %s could not be removed: %s", entry.run_id, error)

    def _log(self, bundle: Bundle) -> None:
        run = bundle.run
        self.logger.debug(
            "Published run %s of task %r (%s, %s): %s",
            run.run_id,
            run.task_id,
            run.actor_name,
            run.status,
            ", ".join(f"{artifact.name} {artifact.status}" for artifact in bundle.artifacts),
        )
