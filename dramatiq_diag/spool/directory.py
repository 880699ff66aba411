"""Keeps the spool directory of a worker process: entries of runs that survive the process.

    <spool>/<owner>/owner.lock              locked by the worker process for as long as it lives
    <spool>/<owner>/owner.state             the memory of the process and of its runs, a second old at most
    <spool>/<owner>/<run id>.entry          JSON lines: the run's start, pieces of text artifacts, its end
    <spool>/<owner>/<run id>.<artifact>     the file of an artifact that is not text by the line

`contents` reads the spool; here a process makes, measures and gives up its own directory.
"""

from __future__ import annotations

import os
import uuid
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ..errors import SpoolError
from ..runtime.memory_state import MemoryState
from ..settings import Settings
from .contents import FILES_PER_STEP, MAX_LISTED, SpoolContents
from .entry import Entry
from .memory_story import MemoryStory
from .owner_lock import LOCK_FILE, NO_LOCKS, OwnerLock
from .owner_state import StateFile

#: Entries that are made beforehand, the number below which more are made, and the most that are recycled.
READY_ENTRIES = 64
_FEW_READY = READY_ENTRIES // 2
_MAX_READY = 2 * READY_ENTRIES

#: Bytes of a block, the unit of `st_blocks`; and about the bytes that a file's inode and name take.
_BLOCK_BYTES = 512
_FILE_BYTES = 512


class Spool(SpoolContents):
    """The spool directory, of which each worker process owns one directory.

    Parameters:
      settings: Where the spool is, and how large it may grow.
      max_listed, files_per_step: See `SpoolContents`.
    """

    def __init__(
        self, settings: Settings, *, max_listed: int = MAX_LISTED, files_per_step: int = FILES_PER_STEP
    ) -> None:
        super().__init__(settings.spool, max_listed=max_listed, files_per_step=files_per_step)
        self.max_bytes = settings.spool_max_bytes
        self.owner: Path | None = None
        "This process's own directory, once it is open."
        self.ready: deque[Entry] = deque()
        "Entries that were made beforehand."
        self.full = False
        "Whether the spool was found past its limit when it was last measured."
        self.size_bytes = 0
        "The disk space that was measured then, in bytes."
        self._state_file: StateFile | None = None
        self._lock: OwnerLock | None = None
        self.store_id: uuid.UUID | None = None
        "The store that this process publishes into, while the publisher knows it."
        self._written_store_id: uuid.UUID | None = None

    def open(self) -> None:
        """Makes this process's own directory and locks it.

        Raises:
          SpoolError: When the directory cannot be made.
        """
        for attempts_left in (2, 1, 0):
            owner = self.root / str(uuid.uuid4())
            try:
                for directory in (self.root.parent, self.root):  # The first one is the data dir, by default.
                    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                owner.mkdir(mode=0o700)
                self._lock, self._written_store_id = OwnerLock(owner), None
            except OSError as error:
                # Between the two steps a salvager may take the directory for a dead owner's. Then another one is made.
                if attempts_left and isinstance(error, (FileNotFoundError, BlockingIOError)):
                    continue
                with suppress(OSError):  # The first error is reported; this is tried again every few seconds.
                    (owner / LOCK_FILE).unlink(missing_ok=True)
                    owner.rmdir()
                raise SpoolError(_unusable(self.root, error)) from error
            self.owner = owner
            return

    def close(self) -> None:
        """Gives the directory up. The next worker on this disk salvages what is left in it."""
        if self.owner is None:
            return
        owner, self.owner = self.owner, None
        self._drop_ready()
        self.remove_owner(owner)
        self._unlock()

    def _drop_ready(self) -> None:
        while self.ready:
            entry = self.ready.popleft()
            entry.close()
            try:
                entry.remove(())
            except OSError as error:
                self.logger.debug("The entry %s, made beforehand, stays: %s", entry.run_id, error)

    def _unlock(self) -> None:
        if self._state_file is not None:
            self._state_file.close()
            self._state_file = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def entry(self, entry_id: uuid.UUID | None = None) -> Entry:
        """Returns: An entry for a new run, one made beforehand if there is one; or one with this id.

        Without a usable spool the entry is kept in memory and published from there. So is the entry of a run that
        begins while the spool is full: it collects nothing, and each artifact has the reason.
        """
        if self.full:
            entry = Entry(self.owner or self.root, entry_id or uuid.uuid4())
            entry.is_declined = True
            return entry
        if entry_id is not None:
            return self._new_entry(entry_id)
        try:
            return self.ready.popleft()
        except IndexError:
            return self._new_entry(uuid.uuid4())

    def refill_pool(self) -> None:
        """Makes entries beforehand: a file's creation waits for a sync of the same disk, and a task must not wait.

        Raises:
          SpoolError: When this process's directory was removed, and no new one can be made.
        """
        if self._lock is not None and not self._lock.is_in_place():
            self._open_anew()
        if len(self.ready) >= _FEW_READY:
            return
        while self.owner is not None and len(self.ready) < READY_ENTRIES:
            self.ready.append(self._new_entry(uuid.uuid4()))

    def _open_anew(self) -> None:
        """Makes a new directory after the old one was removed, as by an `rm -rf` of the data directory."""
        owner, self.owner = self.owner, None
        self._unlock()
        if owner is not None and self._locked_again(owner):
            self.owner = owner
            return
        self.logger.warning(
            "The spool directory %s was removed. A new one is made; runs whose entries were removed with it are lost.",
            owner,
        )
        self._drop_ready()  # Their files are gone: a run that got one would be kept in memory.
        self.open()

    def _locked_again(self, owner: Path) -> bool:
        """Locks the directory again, where only the lock file was removed. Returns: False where that cannot be done."""
        try:
            self._lock, self._written_store_id = OwnerLock(owner), None
        except OSError as error:
            self.logger.debug("The spool directory %s cannot be locked again: %s", owner, error)
            return False
        return True

    def discard(self, entry: Entry, suffixes: Iterable[str]) -> None:
        """Removes an entry that was published, with its files of these suffixes. Raises: OSError."""
        if entry.owner != self.owner or len(self.ready) >= _MAX_READY:
            entry.remove(suffixes)
            return
        entry.remove_files(suffixes)
        with suppress(FileNotFoundError):  # Someone removed it.
            self.ready.append(entry.recycled())

    def _new_entry(self, entry_id: uuid.UUID) -> Entry:
        entry = Entry(self.owner or self.root, entry_id)
        entry.create()
        return entry

    def measure(self) -> int:
        """Adds up the disk space of the files of runs, and sets `size_bytes` and `full`. Returns: The bytes."""
        found = (file for owner in self.owners() for file in self.files(owner))
        size_bytes = sum(_disk_bytes(file.status) for file in found if not file.is_ready)
        self.size_bytes, self.full = size_bytes, size_bytes > self.max_bytes
        return size_bytes

    def keep_lock_young(self) -> None:
        """Sets the time of the lock file. Raises: OSError."""
        if self._lock is not None:
            self._lock.touch()

    def write_store_id(self) -> None:
        """Writes which store this process publishes into, so that a worker of another one salvages none of its runs.

        Where the disk is full any worker may take what this one leaves.
        """
        store_id = self.store_id
        if self._lock is not None and store_id is not None and store_id != self._written_store_id:
            self._written_store_id = store_id
            try:
                self._lock.note_store(store_id)
            except OSError as error:
                self.logger.debug("The spool directory %s does not say which store it is of: %s", self.owner, error)

    def write_state(self, at: float, state: MemoryState) -> None:
        """Writes the memory state of this process at a time, in seconds since the epoch. Raises: OSError."""
        if (file := self._opened_state_file()) is not None:
            file.write(at, state)

    def write_story(self, story: MemoryStory) -> None:
        """Writes the memory of the runs of this process. Raises: OSError."""
        if (file := self._opened_state_file()) is not None:
            file.write_story(story)

    def _opened_state_file(self) -> StateFile | None:
        if self._state_file is None and self.owner is not None:
            self._state_file = StateFile(self.owner)
        return self._state_file


def _disk_bytes(status: os.stat_result) -> int:
    return status.st_blocks * _BLOCK_BYTES + _FILE_BYTES


def _unusable(root: Path, error: OSError) -> str:
    text = f"The spool directory {root} cannot be used: {error.strerror or error}; "
    if error.errno in NO_LOCKS:
        return f"{text}its file system has no locks. Set DRAMATIQ_DIAG_SPOOL_DIR to a directory on a local disk."
    return f"{text}make it writable for the worker, or set DRAMATIQ_DIAG_SPOOL_DIR to one that is."
