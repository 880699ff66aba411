"""What stands in the spool, whichever process made it: owners, their entries, and what cannot be used.

Whoever salvages trusts nothing in here: names are matched, links are not followed, lines are parsed one by one.
"""

from __future__ import annotations

import errno
import heapq
import os
import re
import stat
import uuid
from collections.abc import Container, Iterable, Iterator
from pathlib import Path

from ..errors import SpoolError
from ..runtime.loggers import get_logger
from .entry import EMPTY_BYTES, ENTRY_SUFFIX, Entry
from .owner_lock import LOCK_FILE, NO_LOCKS, OwnerLock
from .owner_state import STATE_FILE

_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_OWNER_NAME = re.compile(_UUID)
_FILE_NAME = re.compile(rf"(?P<run>{_UUID})\.(?P<kind>[a-z][a-z0-9_]{{0,63}}(\.tmp|\.part)?)")

#: Entries of a dead owner that are listed at once, about 180 bytes each, and the files that are looked at in one step.
MAX_LISTED = 50_000
_FILES_PER_STEP = 1000

_File = tuple[uuid.UUID, str, os.stat_result]


class SpoolContents:
    """The owners' directories under one root, and their files.

    Parameters:
      root: The spool directory.
    """

    def __init__(self, root: Path) -> None:
        self.logger = get_logger(__name__, type(self))
        self.root = root
        self.passed_over: dict[Path, OSError] = {}
        "Directories of the spool that could not be used so far, or that hold what is not ours, and what is wrong."

    def written_at(self, *owners: Path) -> list[float]:
        """Returns: When each entry of these owners, or of all, was last written to, in seconds since the epoch."""
        found = (file for owner in owners or self.owners() for file in self.files(owner))
        return [status.st_mtime for _, kind, status in found if _is_used(kind, status)]

    def dead_owners(self) -> Iterator[Path]:
        """Yields the directory of each owner that died, locked until the next step, so that one salvager has it."""
        for owner in self.owners():
            try:
                lock = OwnerLock(owner)
            except (BlockingIOError, FileNotFoundError):  # Its worker lives, or another salvager was faster.
                continue
            except OSError as error:
                self._pass_over(owner, error)
                continue
            try:
                yield owner
            finally:
                lock.close()

    def entries(self, owner: Path, count: int, *, but: Container[uuid.UUID] = ()) -> list[Entry]:
        """Returns: The oldest entries of an owner that a run was written to, oldest first.

        Parameters:
          owner: The owner's directory.
          count: How many at most.
          but: Ids of entries to leave out.

        Raises:
          SpoolError: When the directory cannot be read.
        """
        try:
            return [Entry(owner, run_id) for _, run_id in heapq.nsmallest(count, self._used(owner, but))]
        except OSError as error:
            raise SpoolError(f"The spool directory {owner} cannot be read: {error.strerror or error}") from error

    def batches(self, owner: Path, count: int, *, but: Container[uuid.UUID] = ()) -> Iterator[list[Entry]]:
        """Yields all entries of a dead owner, oldest first. Each step takes a moment only.

        The directory is listed once for each `MAX_LISTED` entries. What was yielded before is expected to be removed,
        or to be in *but*, when it is listed again. While it is listed, empty batches are yielded.

        Parameters:
          owner: The owner's directory. One that cannot be read is passed over.
          count: Entries in a batch.
          but: Ids of entries to leave out.
        """
        is_complete = False
        while not is_complete:
            found: list[tuple[int, uuid.UUID]] = []
            is_complete = True
            try:
                for number, (run_id, kind, status) in enumerate(self._files(owner), 1):
                    if _is_used(kind, status) and run_id not in but:
                        found.append((status.st_mtime_ns, run_id))
                    if len(found) == 2 * MAX_LISTED:
                        is_complete = _cut_to_oldest(found)
                    if number % _FILES_PER_STEP == 0:
                        yield []
            except OSError as error:
                self._pass_over(owner, error)
                return
            is_complete &= _cut_to_oldest(found)
            for start in range(0, len(found), count):
                yield [Entry(owner, run_id) for _, run_id in found[start : start + count]]

    def _used(self, owner: Path, but: Container[uuid.UUID]) -> Iterator[tuple[int, uuid.UUID]]:
        for run_id, kind, status in self._files(owner):
            if _is_used(kind, status) and run_id not in but:
                yield status.st_mtime_ns, run_id

    def remove_abandoned(self, before: float, *, dry_run: bool = False) -> Iterator[int]:
        """Removes what dead owners left and nobody salvaged. Yields the bytes of each entry.

        Parameters:
          before: Seconds since the epoch; what was written later stays.
          dry_run: Whether to yield only.
        """
        for owner in self.dead_owners():
            runs: dict[uuid.UUID, list[tuple[str, os.stat_result]]] = {}
            for run_id, kind, status in self.files(owner):
                runs.setdefault(run_id, []).append((kind, status))
            for run_id, files in runs.items():
                if max(status.st_mtime for _, status in files) >= before:
                    continue
                if not dry_run and not self._removed(Entry(owner, run_id), [kind for kind, _ in files]):
                    continue
                if any(status.st_size > EMPTY_BYTES for _, status in files):  # Not one that was only made beforehand.
                    yield sum(status.st_size for _, status in files)
            if not dry_run:
                self.remove_owner(owner)

    def _removed(self, entry: Entry, kinds: Iterable[str]) -> bool:
        try:
            entry.remove(kinds)
        except OSError as error:
            self._pass_over(entry.owner, error)
            return False
        return True

    def remove_owner(self, owner: Path) -> None:
        """Removes an owner's files that no entry speaks for, and the directory if nothing else is left."""
        try:
            files = list(self._files(owner))
            with_entry = {run_id for run_id, kind, status in files if _is_used(kind, status)}
            for run_id, kind, _ in files:
                if run_id not in with_entry:
                    (owner / f"{run_id}.{kind}").unlink(missing_ok=True)
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

    def living_owners(self) -> list[Path]:
        """Returns: The directories of processes that are running."""
        dead = {*self.dead_owners()}
        return [owner for owner in self.owners() if owner not in dead]

    def owners(self) -> list[Path]:
        """Returns: The directories of all owners, living and dead."""
        try:
            with os.scandir(self.root) as entries:
                named = [entry for entry in entries if _OWNER_NAME.fullmatch(entry.name)]
        except (FileNotFoundError, NotADirectoryError):  # Where that is wrong, `open` says so.
            return []
        except OSError as error:
            self._pass_over(self.root, error)
            return []
        owners = []
        for entry in named:
            owner = self.root / entry.name
            try:
                if entry.is_dir(follow_symlinks=False):
                    owners.append(owner)
                elif os.path.lexists(owner):
                    self._pass_over(owner, NotADirectoryError(errno.ENOTDIR, "Not a directory"))
            except OSError as error:
                self._pass_over(owner, error)
        return owners

    def files(self, owner: Path) -> Iterator[_File]:
        """Yields what `_files` does; an owner that cannot be read is passed over."""
        try:
            yield from self._files(owner)
        except OSError as error:
            self._pass_over(owner, error)

    def _files(self, owner: Path) -> Iterator[_File]:
        """Yields run id, kind and status of each regular file of our own pattern; files that vanish are left out.

        Raises:
          OSError: When the directory cannot be read.
        """
        try:
            entries = os.scandir(owner)
        except FileNotFoundError:  # Its owner, or another salvager, removed it meanwhile.
            return
        with entries:
            for entry in entries:
                match = _FILE_NAME.fullmatch(entry.name)
                if match is None:
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISREG(status.st_mode):
                    yield uuid.UUID(match["run"]), match["kind"], status
                else:
                    self._pass_over(owner, OSError(errno.EINVAL, f"{entry.name} is not a regular file"))

    def _pass_over(self, path: Path, error: OSError) -> None:
        """Notes what cannot be used, and says so the first time."""
        if path not in self.passed_over:
            self.logger.warning("%s is passed over: %s. %s", path, error.strerror or error, remedy_for(error))
        self.passed_over[path] = error


def remedy_for(error: OSError) -> str:
    """Returns: What to do about a directory of the spool that cannot be used."""
    if error.errno in NO_LOCKS:
        return (
            "Its file system has no locks, so nothing is salvaged. Set DRAMATIQ_DIAG_SPOOL_DIR to a local disk. "
            "Once no worker uses the old directory, move what is in it there and run: dramatiq-diag recover"
        )
    return "Change the owner of it to the worker's user, or run `dramatiq-diag recover` as its owner; or remove it."


def _is_used(kind: str, status: os.stat_result) -> bool:
    """Returns: Whether it is an entry, and not one that was only made beforehand."""
    return kind == ENTRY_SUFFIX and status.st_size > EMPTY_BYTES


def is_ready(kind: str, status: os.stat_result) -> bool:
    """Returns: Whether it is an entry that was only made beforehand; each process has a fixed number of them."""
    return kind == ENTRY_SUFFIX and status.st_size <= EMPTY_BYTES


def _cut_to_oldest(found: list[tuple[int, uuid.UUID]]) -> bool:
    """Sorts by age, and keeps the `MAX_LISTED` oldest. Returns: Whether these are all."""
    found.sort()
    is_complete = len(found) <= MAX_LISTED
    del found[MAX_LISTED:]
    return is_complete
