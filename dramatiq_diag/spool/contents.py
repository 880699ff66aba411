"""Lists the owners' directories of the spool and their entries, whichever process wrote them.

A salvager trusts none of it: names are matched, links are not followed, lines are parsed one by one.
"""

from __future__ import annotations

import errno
import heapq
import os
import re
import stat
import uuid
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import SpoolError
from ..runtime import directory_scan
from ..runtime.loggers import get_logger
from ..text import UUID_PATTERN
from .entry import EMPTY_BYTES, ENTRY_SUFFIX, Entry
from .owner_lock import LOCK_FILE, NO_LOCKS, AnotherStoreError, OwnerLock
from .owner_state import STATE_FILE

_OWNER_NAME = re.compile(UUID_PATTERN)
_FILE_NAME = re.compile(rf"(?P<run>{UUID_PATTERN})\.(?P<suffix>[a-z][a-z0-9_]{{0,63}}(\.tmp|\.part)?)")

#: Entries of a dead owner that are listed at once, about 180 bytes each, and the files that are looked at in one step.
MAX_LISTED = 50_000
FILES_PER_STEP = 1000


class File(NamedTuple):
    """A regular file of our own pattern."""

    run_id: uuid.UUID
    suffix: str
    status: os.stat_result

    @property
    def is_used(self) -> bool:
        """Whether it is an entry that a run was written to."""
        return self.suffix == ENTRY_SUFFIX and self.status.st_size > EMPTY_BYTES

    @property
    def is_ready(self) -> bool:
        """Whether it is an entry that was only made beforehand; each process has a fixed number of them."""
        return self.suffix == ENTRY_SUFFIX and self.status.st_size <= EMPTY_BYTES


class SpoolContents:
    """The owners' directories under one root, and their files.

    Parameters:
      max_listed: Entries of a dead owner that are listed at once.
      files_per_step: Files that are looked at in one step of `batches`.
    """

    def __init__(self, root: Path, *, max_listed: int = MAX_LISTED, files_per_step: int = FILES_PER_STEP) -> None:
        self.logger = get_logger(__name__, type(self))
        self.root = root
        self.passed_over: dict[Path, OSError] = {}
        "Directory of the spool -> why it cannot be used, or which of its files is not ours."
        self._max_listed = max_listed
        self._files_per_step = files_per_step

    def written_at(self, *owners: Path) -> list[float]:
        """Returns: When each entry of these owners, or of all, was last written to, in seconds since the epoch."""
        found = (file for owner in owners or self.owners() for file in self.files(owner))
        return [file.status.st_mtime for file in found if file.is_used]

    def dead_owners(self, store_id: Callable[[], uuid.UUID] | None = None) -> Iterator[Path]:
        """Yields the directory of each owner that died, locked until the next step, so that one salvager has it.

        Parameters:
          store_id: Returns the id of the store; the owners of other stores are passed over. None for the owners of all.
        """
        for owner in self.owners():
            try:
                lock = OwnerLock(owner)
            except (BlockingIOError, FileNotFoundError):  # Its worker lives, or another salvager was faster.
                continue
            except OSError as error:
                self._pass_over(owner, error)
                continue
            try:
                theirs = None if store_id is None else lock.store_id()
                if store_id is None or theirs is None or theirs == store_id():
                    yield owner
                else:
                    self._pass_over(owner, AnotherStoreError(errno.EPERM, f"It is of another store, {theirs}"))
            finally:
                lock.close()

    def living_owners(self) -> list[Path]:
        """Returns: The directories of processes that are running."""
        dead = {*self.dead_owners()}
        return [owner for owner in self.owners() if owner not in dead]

    def owners(self) -> list[Path]:
        """Returns: The directories of all owners, living and dead."""
        owners = []
        try:
            for match, status in directory_scan.scan(self.root, _OWNER_NAME):
                if stat.S_ISDIR(status.st_mode):
                    owners.append(self.root / match[0])
                else:
                    self._pass_over(self.root / match[0], NotADirectoryError(errno.ENOTDIR, "Not a directory"))
        except (FileNotFoundError, NotADirectoryError):  # Where that is wrong, `open` says so.
            return []
        except OSError as error:
            self._pass_over(self.root, error)
        return owners

    def entries(self, owner: Path, count: int, *, but: Container[uuid.UUID] = ()) -> list[Entry]:
        """Returns: The oldest entries of an owner that a run was written to, at most *count*, oldest first.

        Raises:
          SpoolError: When the directory cannot be read.
        """
        try:
            used = (
                (file.status.st_mtime_ns, file.run_id)
                for file in self._files(owner)
                if file.is_used and file.run_id not in but
            )
            return [Entry(owner, run_id) for _, run_id in heapq.nsmallest(count, used)]
        except OSError as error:
            raise SpoolError(f"The spool directory {owner} cannot be read: {error.strerror or error}") from error

    def batches(self, owner: Path, count: int, *, but: Container[uuid.UUID] = ()) -> Iterator[list[Entry]]:
        """Yields all entries of a dead owner, oldest first. Each step takes a moment only.

        The directory is listed once for each `max_listed` entries. What was yielded before is expected to be removed,
        or to be in *but*, when it is listed again. While it is listed, empty batches are yielded.

        An owner that cannot be read is passed over.
        """
        is_complete = False
        while not is_complete:
            found: list[tuple[int, uuid.UUID]] = []
            is_complete = True
            try:
                for number, file in enumerate(self._files(owner), 1):
                    if file.is_used and file.run_id not in but:
                        found.append((file.status.st_mtime_ns, file.run_id))
                    if len(found) == 2 * self._max_listed:
                        is_complete = self._cut_to_oldest(found)
                    if number % self._files_per_step == 0:
                        yield []
            except OSError as error:
                self._pass_over(owner, error)
                return
            is_complete &= self._cut_to_oldest(found)
            for start in range(0, len(found), count):
                yield [Entry(owner, run_id) for _, run_id in found[start : start + count]]

    def _cut_to_oldest(self, found: list[tuple[int, uuid.UUID]]) -> bool:
        """Sorts by age, and keeps as many as are listed at once. Returns: Whether these are all."""
        found.sort()
        is_complete = len(found) <= self._max_listed
        del found[self._max_listed :]
        return is_complete

    def abandoned(self, before: float, store_id: Callable[[], uuid.UUID] | None = None) -> Iterator[tuple[Entry, int]]:
        """Yields the entries that dead owners last wrote *before* a time, each with the bytes of its files.

        Parameters:
          before: The time, in seconds since the epoch.
          store_id: See `dead_owners`.
        """
        for owner in self.dead_owners(store_id):
            for entry, files in self._last_written(owner, before):
                if not _are_ready(files):
                    yield entry, _bytes_of(files)

    def remove_abandoned(
        self,
        before: float,
        store_id: Callable[[], uuid.UUID] | None = None,
        publish: Callable[[Path], Container[uuid.UUID]] | None = None,
    ) -> Iterator[int]:
        """Removes the entries that `abandoned` yields, and those that were only made beforehand.

        *publish* is called with each owner before that, while it is locked. It returns the runs that were refused; the
        entries of other runs stay, as it did not come to them. Yields the bytes of each entry.
        """
        for owner in self.dead_owners(store_id):
            refused = None if publish is None else publish(owner)
            for entry, files in self._last_written(owner, before):
                if refused is not None and entry.run_id not in refused and any(file.is_used for file in files):
                    continue
                if self._removed(entry, [file.suffix for file in files]) and not _are_ready(files):
                    yield _bytes_of(files)
            self.remove_owner(owner)

    def _last_written(self, owner: Path, before: float) -> Iterator[tuple[Entry, list[File]]]:
        """Yields the entries of an owner that were last written before a time, each with its files."""
        runs: dict[uuid.UUID, list[File]] = {}
        for file in self.files(owner):
            runs.setdefault(file.run_id, []).append(file)
        for run_id, files in runs.items():
            if max(file.status.st_mtime for file in files) < before:
                yield Entry(owner, run_id), files

    def _removed(self, entry: Entry, suffixes: Iterable[str]) -> bool:
        try:
            entry.remove(suffixes)
        except OSError as error:
            self._pass_over(entry.owner, error)
            return False
        return True

    def remove_owner(self, owner: Path) -> None:
        """Removes an owner's files that belong to no entry, and the directory if nothing else is left."""
        try:
            files = list(self._files(owner))
            with_entry = {file.run_id for file in files if file.is_used}
            for file in files:
                if file.run_id not in with_entry:
                    (owner / f"{file.run_id}.{file.suffix}").unlink(missing_ok=True)
            if not with_entry:
                for name in (STATE_FILE, LOCK_FILE):
                    (owner / name).unlink(missing_ok=True)
                owner.rmdir()
        except FileNotFoundError:  # Someone removed all of it.
            return
        except OSError as error:
            if error.errno == errno.ENOTEMPTY:  # There are files in it that are not ours.
                self.logger.debug("The spool directory %s stays: %s", owner, error)
            else:
                self._pass_over(owner, error)

    def files(self, owner: Path) -> Iterator[File]:
        """Yields the files of an owner; one that cannot be read is passed over."""
        try:
            yield from self._files(owner)
        except OSError as error:
            self._pass_over(owner, error)

    def _files(self, owner: Path) -> Iterator[File]:
        """Yields the files of an owner. Raises: OSError when the directory cannot be read."""
        try:
            for match, status in directory_scan.scan(owner, _FILE_NAME):
                if stat.S_ISREG(status.st_mode):
                    yield File(uuid.UUID(match["run"]), match["suffix"], status)
                else:
                    self._pass_over(owner, OSError(errno.EINVAL, f"{match[0]} is not a regular file"))
        except FileNotFoundError:  # Its owner, or another salvager, removed it meanwhile.
            return

    def _pass_over(self, path: Path, error: OSError) -> None:
        """Notes what cannot be used, and says so the first time."""
        if path not in self.passed_over:
            self.logger.warning("%s is passed over: %s. %s", path, error.strerror or error, remedy_for(error))
        self.passed_over[path] = error


def _are_ready(files: Iterable[File]) -> bool:
    """Returns: Whether the files are those of an entry that was only made beforehand."""
    return all(file.status.st_size <= EMPTY_BYTES for file in files)


def _bytes_of(files: Iterable[File]) -> int:
    return sum(file.status.st_size for file in files)


def remedy_for(error: OSError) -> str:
    """Returns: What to do about a directory of the spool that cannot be used."""
    if error.errno in NO_LOCKS:
        return (
            "Its file system has no locks, so nothing is salvaged. Set DRAMATIQ_DIAG_SPOOL_DIR to a local disk. "
            "Once no worker uses the old directory, move what is in it there and run: dramatiq-diag recover"
        )
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "It is tried again. Raise the limit of open files of the process (ulimit -n), if this goes on."
    if isinstance(error, AnotherStoreError):
        return (
            "A worker with the settings of that store publishes it. Give each store a spool of its own: "
            "DRAMATIQ_DIAG_SPOOL_DIR."
        )
    return "Change the owner of it to the worker's user, or run `dramatiq-diag recover` as its owner; or remove it."
