"""Keeps the spool directory of a worker process: entries of runs that survive the process.

    <spool>/<owner>/owner.lock              locked by the worker process for as long as it lives
    <spool>/<owner>/owner.state             the memory state of the process, a second old at most while it had runs
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
from .owner_lock import LOCK_FILE, NO_LOCKS, OwnerLock
from .owner_state import StateFile

#: Entries that are made beforehand, the number below which more are made, and the most that are recycled.
READY_ENTRIES = 64
_FEW_READY = READY_ENTRIES // 2
_MAX_READY = 2 * READY_ENTRIES

#: Bytes of a block, the unit of `st_blocks`; and of a file's inode and name, about.
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
        self._ready: deque[Entry] = deque()
        self.full = False
        "Whether the spool was found past its limit when it was last measured."
        self._state: StateFile | None = None
        self._lock: OwnerLock | None = None

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
                self._lock = OwnerLock(owner)
            except OSError as error:
                # A salvager may take a directory for a dead owner's between the two steps; the next one is another.
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
        while self._ready:
            entry = self._ready.popleft()
            entry.close()
            try:
                entry.remove(())
            except OSError as error:
                self.logger.debug("The entry %s, made beforehand, stays: %s", entry.run_id, error)

    def _unlock(self) -> None:
        if self._state is not None:
            self._state.close()
            self._state = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def entry(self) -> Entry:
        """Returns: An entry for a new run, one made beforehand if there is one.

        Without a usable spool the entry is kept in memory and published from there. So is the entry of a run that
        begins while the spool is full: it collects nothing, and each artifact has the reason.
        """
        if self.full:
            entry = Entry(self.owner or self.root, uuid.uuid4())
            entry.is_declined = True
            return entry
        try:
            return self._ready.popleft()
        except IndexError:
            return self._new_entry()

    def refill_pool(self) -> None:
        """Makes entries beforehand: a file's creation waits for a sync of the same disk, and a task must not wait.

        Raises:
          SpoolError: When this process's directory was removed, and no new one can be made.
        """
        if self._lock is not None and not self._lock.is_in_place():
            self._open_anew()
        if len(self._ready) >= _FEW_READY:
            return
        while self.owner is not None and len(self._ready) < READY_ENTRIES:
            self._ready.append(self._new_entry())

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
        self._drop_ready()  # Their files are gone, and a run would be kept in memory.
        self.open()

    def _locked_again(self, owner: Path) -> bool:
        """Locks the directory again, where only the lock file was removed. Returns: False where that cannot be done."""
        try:
            self._lock = OwnerLock(owner)
        except OSError as error:
            self.logger.debug("The spool directory %s cannot be locked again: %s", owner, error)
            return False
        return True

    def discard(self, entry: Entry, suffixes: Iterable[str]) -> None:
        """Removes an entry that was published, with its files of these suffixes. Raises: OSError."""
        if entry.owner != self.owner or len(self._ready) >= _MAX_READY:
            entry.remove(suffixes)
            return
        entry.remove_files(suffixes)
        with suppress(FileNotFoundError):  # Someone removed it.
            self._ready.append(entry.recycled())

    def _new_entry(self) -> Entry:
        entry = Entry(self.owner or self.root, uuid.uuid4())
        entry.create()
        return entry

    def measure(self) -> int:
        """Adds up the disk space of the files of runs and sets `full`. Returns: The bytes."""
        found = (file for owner in self.owners() for file in self.files(owner))
        size_bytes = sum(_disk_bytes(file.status) for file in found if not file.is_ready)
        self.full = size_bytes > self.max_bytes
        return size_bytes

    def write_state(self, at: float, vitals: MemoryState) -> None:
        """Writes the memory state of this process at a time, in seconds since the epoch. Raises: OSError."""
        if self.owner is None:
            return
        if self._state is None:
            self._state = StateFile(self.owner)
        self._state.write(at, vitals)


def _disk_bytes(status: os.stat_result) -> int:
    return status.st_blocks * _BLOCK_BYTES + _FILE_BYTES


def _unusable(root: Path, error: OSError) -> str:
    text = f"The spool directory {root} cannot be used: {error.strerror or error}; "
    if error.errno in NO_LOCKS:
        return f"{text}its file system has no locks. Set DRAMATIQ_DIAG_SPOOL_DIR to a directory on a local disk."
    return f"{text}make it writable for the worker, or set DRAMATIQ_DIAG_SPOOL_DIR to one that is."
