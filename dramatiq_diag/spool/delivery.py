"""Publishes spool entries: those of this process, and those that dead workers left."""

from __future__ import annotations

import enum
import errno
import os
import time
import uuid
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import RunRefusedError, SpoolError
from ..runtime.loggers import get_logger
from ..store.records import FinishedRun
from ..store.store import Store
from .directory import Spool
from .entry import Entry
from .reader import file_suffixes, read_finished_run

#: Runs published in one transaction.
BATCH_SIZE = 100

#: The most bytes in memory of the texts of the runs in one transaction; a batch with more is published in parts.
_BATCH_BYTES = 1024**2

#: Runs of dead workers published in one transaction: the process's own runs wait for as long as that takes.
SALVAGE_BATCH_SIZE = 25

#: Errors of reading an entry that say nothing about the entry: it is read again later.
_SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT}

#: The errors of reading an entry; the last two are of figures that no worker writes.
_UNREADABLE = (SpoolError, OSError, ValueError, ArithmeticError)


class Outcome(enum.Enum):
    """What became of an entry that is not to be delivered again."""

    PUBLISHED = enum.auto()
    REFUSED = enum.auto()
    "It cannot be published, and stays in the spool."
    LOST = enum.auto()
    "Someone removed it from the spool."


Settled = Callable[[Entry, Outcome], None]


@dataclass(kw_only=True)
class Salvaged:
    """What became of the entries of dead workers."""

    recovered_runs: int = 0
    refused_runs: int = 0
    "Entries that could not be published, and stay in the spool."

    def count(self, _: Entry, outcome: Outcome) -> None:
        """Counts an entry."""
        self.recovered_runs += outcome is Outcome.PUBLISHED
        self.refused_runs += outcome is Outcome.REFUSED


class Delivery:
    """Publishes entries, and removes them from the spool once they are in the store.

    Parameters:
      batch_bytes: The most that the texts of runs in one transaction take in memory together.
    """

    def __init__(self, spool: Spool, store: Store, *, batch_bytes: int = _BATCH_BYTES) -> None:
        self.logger = get_logger(__name__, type(self))
        self.spool = spool
        self._store = store
        self._batch_bytes = batch_bytes
        self.refused: set[uuid.UUID] = set()
        "Entries that are not to be tried again: they cannot be published, or were and cannot be removed."
        self.deferred: dict[uuid.UUID, Exception] = {}
        "Entries that wait for `retry_deferred`, as no file in their directory could be reached -> why."
        self._warned: set[Path] = set()
        "Owners' directories for which it was logged that an entry cannot be removed."

    def deliver(self, entries: Sequence[Entry], settled: Settled = lambda _, __: None) -> None:
        """Publishes entries, in order, and removes them.

        An entry is refused only for what its own run causes. One whose whole directory cannot be reached is deferred.
        Whatever else goes wrong is raised, so that the entries which were not settled are delivered again later.

        *settled* is called with each entry that is not to be delivered again, as soon as that is certain.

        Raises:
          StoreError: When the store cannot be used.
          SpoolError: When the process lacks what it takes to read the spool.
        """
        read: list[tuple[Entry, FinishedRun]] = []
        held_bytes = 0
        for entry, run in self._read(entries, settled):
            read.append((entry, run))
            held_bytes += run.held_bytes
            if held_bytes >= self._batch_bytes:
                self._publish(read, settled)
                read, held_bytes = [], 0
        self._publish(read, settled)

    def _publish(self, read: Sequence[tuple[Entry, FinishedRun]], settled: Settled) -> None:
        """Publishes entries that were read, in one transaction, and removes them. As `deliver` otherwise."""
        if not read:
            return
        try:
            self._store.publish([run for _, run in read])
        except (RunRefusedError, OSError, ValueError, ArithmeticError) as error:  # The store translates its own errors.
            if _is_passing(error) or not _is_open(read[0][0].owner):
                raise SpoolError(f"The spool cannot be read: {error}.") from error
            if len(read) > 1:
                for entry, _ in read:
                    self.deliver([entry], settled)
                return
            self._refuse(read[0][0], error, settled)
            return
        for entry, run in read:
            self._remove(entry, self.spool.discard, file_suffixes(run))
            settled(entry, Outcome.PUBLISHED)
            self._log(run)

    def retry_deferred(self) -> None:
        """Lets the deferred entries be delivered again, after a pause. Raises: SpoolError where there are any."""
        if self.deferred:
            _, error = self.deferred.popitem()
            self.deferred.clear()
            raise SpoolError(f"The spool cannot be read: {error}.") from error

    def salvage(self, *, until: float | None = None) -> Salvaged:
        """Publishes the entries that dead processes of this disk left, the oldest of each first.

        *until* is when to begin no further batch, by `time.monotonic`; the rest waits for the next salvager.

        Raises:
          StoreError: When the store cannot be used.
          SpoolError: When the process lacks what it takes to read the spool.
        """
        counts = Salvaged()
        for _ in self.salvage_in_steps(counts):
            if until is not None and time.monotonic() >= until:
                break
        return counts

    def salvage_in_steps(self, counts: Salvaged) -> Generator[None, None, None]:
        """Salvages a bit at a time: each step lists some files or publishes one batch, and adds to *counts*.

        One owner is locked at a time, until the iterator is closed. It raises as `salvage` does, and ends with that.
        """
        for owner in self.spool.dead_owners(self._store.store_id):
            self.logger.debug("Salvaging what a dead worker left in %s.", owner)
            for _ in self._salvage_owner(owner, counts.count):
                yield
            self.spool.remove_owner(owner)
            yield

    def salvage_owner(self, owner: Path) -> Container[uuid.UUID]:
        """Publishes all entries of a dead owner that the caller has locked. Raises: As `salvage`.

        Returns:
          The ids of the entries that cannot be published.
        """
        for _ in self._salvage_owner(owner):
            pass
        return self.refused

    @staticmethod
    def can_read(entry: Entry) -> bool:
        """Returns: Whether an entry can be published, but for what only the store can refuse."""
        try:
            return read_finished_run(entry) is not None
        except _UNREADABLE:
            return False

    def _salvage_owner(self, owner: Path, settled: Settled = lambda _, __: None) -> Iterator[None]:
        for batch in self.spool.batches(owner, SALVAGE_BATCH_SIZE, but=self.refused):
            if batch:
                self.deliver(batch, settled)
            yield

    def _read(self, entries: Sequence[Entry], settled: Settled) -> Iterator[tuple[Entry, FinishedRun]]:
        """Yields each entry that can be published, with what is published of it; the others are settled."""
        lost = 0
        for entry in entries:
            try:
                run = read_finished_run(entry, is_left=entry.owner != self.spool.owner)
            except (FileNotFoundError, NotADirectoryError):
                run = None
            except _UNREADABLE as error:
                if _is_passing(error):
                    raise SpoolError(f"The spool cannot be read: {error}.") from error
                if not _is_open(entry.owner):  # Others may be in memory alone: these must not wait behind this one.
                    self.deferred[entry.run_id] = error
                    continue
                self._refuse(entry, error, settled)
                continue
            if run is not None:
                yield entry, run
                continue
            self._remove(entry, Entry.remove, ())
            settled(entry, Outcome.LOST)
            lost += 1
        if lost:
            self.logger.warning(
                "%d runs are lost: someone removed their entries from the spool, or emptied them.", lost
            )

    def _refuse(self, entry: Entry, error: Exception, settled: Settled) -> None:
        self.refused.add(entry.run_id)
        self.logger.warning("The run %s could not be published and stays in the spool: %s", entry.run_id, error)
        settled(entry, Outcome.REFUSED)

    def _remove(self, entry: Entry, remove: Callable[[Entry, Iterable[str]], None], suffixes: Iterable[str]) -> None:
        """Removes an entry. A failure is logged once for each directory: there may be thousands of entries."""
        try:
            remove(entry, suffixes)
        except OSError as error:
            self.refused.add(entry.run_id)
            if entry.owner not in self._warned:
                self._warned.add(entry.owner)
                text = "The spool entry of run %s could not be removed, and is published again by the next worker: %s"
                self.logger.warning(text, entry.run_id, error)

    def _log(self, finished: FinishedRun) -> None:
        self.logger.debug(
            "Published run %s of task %r (%s, %s): %s",
            finished.run.run_id,
            finished.run.task_id,
            finished.run.actor_name,
            finished.run.status,
            ", ".join(f"{artifact.name} {artifact.status}" for artifact in finished.artifacts),
        )


def _is_passing(error: Exception) -> bool:
    """Returns: Whether the error says nothing about the entry: a shortage, or a file that vanished meanwhile."""
    return isinstance(error, OSError) and (error.errno in _SHORTAGES or isinstance(error, FileNotFoundError))


def _is_open(owner: Path) -> bool:
    """Returns: Whether the files of an owner can be reached.

    They cannot while the rights of a directory above them are wrong, or its disk fails; no single entry is to blame.
    """
    return os.access(owner, os.R_OK | os.X_OK)
