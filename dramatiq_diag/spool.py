"""Crash-safe local entries: what a run leaves while it runs, and who may publish it after its worker died.

    <spool>/<owner>/owner.lock              locked by the worker process for as long as it lives
    <spool>/<owner>/owner.state             how the process stood a second ago at most, while it had runs
    <spool>/<owner>/<run id>.entry          JSON lines: the run's start, pieces of text artifacts, its end
    <spool>/<owner>/<run id>.<artifact>     the file of an artifact that is not text by the line

Whoever salvages trusts nothing in here: names are matched, links are not followed, lines are parsed one by one.
"""

from __future__ import annotations

import heapq
import os
import re
import stat
import uuid
from collections import deque
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dramatiq.logging import get_logger

from .entry import EMPTY_BYTES, ENTRY_SUFFIX, Entry
from .errors import SpoolError
from .settings import Settings
from .state import STATE_FILE, StateFile
from .vitals import Vitals

LOCK_FILE = "owner.lock"
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_OWNER_NAME = re.compile(_UUID)
_FILE_NAME = re.compile(rf"(?P<run>{_UUID})\.(?P<kind>[a-z][a-z0-9_]{{0,63}}(\.tmp|\.part)?)")

#: Entries that are made beforehand, how few call for more, and the most of those published that serve the next runs.
READY_ENTRIES = 64
_FEW_READY = READY_ENTRIES // 2
_MAX_READY = 2 * READY_ENTRIES

#: Bytes of a block, by which the system counts what it allots to a file; and those of its inode and name, about.
_BLOCK_BYTES = 512
_FILE_BYTES = 512

#: Names of the directories that this process owns. Its record locks never stand in its own way, so it has to remember.
_owned: set[str] = set()


class Spool:
    """The spool directory, of which each worker process owns one directory.

    Parameters:
      settings: Where the spool is, and how large it may grow.
    """

    def __init__(self, settings: Settings) -> None:
        self.logger = get_logger(__name__, type(self))
        self.root = settings.spool
        self.max_bytes = settings.spool_max_bytes
        self.owner: Path | None = None
        "This process's own directory, once it is open."
        self._ready: deque[Entry] = deque()
        self.full = False
        "Whether the spool was found past its limit when it was last measured."
        self._lock_descriptor = -1
        self._state: StateFile | None = None

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
                self._lock_descriptor = _lock(owner)
            except OSError as error:
                # A salvager may take a directory for a dead owner's between the two steps; the next one is another.
                if attempts_left and isinstance(error, (FileNotFoundError, BlockingIOError)):
                    continue
                raise SpoolError(
                    f"The spool directory {self.root} cannot be used: {error.strerror or error}; "
                    "make it writable for the worker, or set DRAMATIQ_DIAG_SPOOL_DIR to one that is."
                ) from error
            _owned.add(owner.name)
            self.owner = owner
            return

    def close(self) -> None:
        """Gives the directory up; what is left in it is salvaged by the next worker on this disk."""
        if self.owner is None:
            return
        owner, self.owner = self.owner, None
        while self._ready:
            entry = self._ready.popleft()
            entry.close()
            entry.remove(())
        if self._state is not None:
            self._state.close()
            self._state = None
        remove_owner(owner)
        os.close(self._lock_descriptor)
        _owned.discard(owner.name)

    def entry(self) -> Entry:
        """Returns: An entry for a new run, one made beforehand if there is one.

        Without a usable spool it is kept in memory and published from there. So is one of a run that begins while the
        spool is full: it has no file at all, and says of each artifact why there is none.
        """
        if self.full:
            entry = Entry(self.owner or self.root, uuid.uuid4())
            entry.is_declined = True
            return entry
        try:
            return self._ready.popleft()
        except IndexError:
            return self._new_entry()

    def make_ready(self) -> None:
        """Makes entries beforehand: a file's creation waits for a sync of the same disk, and a task is not to."""
        if len(self._ready) >= _FEW_READY:
            return
        while self.owner is not None and len(self._ready) < READY_ENTRIES:
            self._ready.append(self._new_entry())

    def discard(self, entry: Entry, kinds: Iterable[str]) -> None:
        """Removes an entry that was published, with its files of these kinds. Raises: OSError."""
        if entry.owner != self.owner or len(self._ready) >= _MAX_READY:
            entry.remove(kinds)
            return
        entry.remove_files(kinds)
        with suppress(FileNotFoundError):  # Someone removed it.
            self._ready.append(entry.renewed())

    def _new_entry(self) -> Entry:
        entry = Entry(self.owner or self.root, uuid.uuid4())
        entry.create()
        return entry

    def measure(self) -> int:
        """Adds up what the files of runs take on the disk and sets `full`. Returns: The bytes."""
        found = (file for owner in self._owners() for file in _files(owner))
        size_bytes = sum(_disk_bytes(status) for _, kind, status in found if not _is_ready(kind, status))
        self.full = size_bytes > self.max_bytes
        return size_bytes

    def write_state(self, at: float, vitals: Vitals) -> None:
        """Notes for a salvager how this process stands, at a time in seconds since the epoch. Raises: OSError."""
        if self.owner is None:
            return
        if self._state is None:
            self._state = StateFile(self.owner)
        self._state.write(at, vitals)

    def written_at(self, *owners: Path) -> list[float]:
        """Returns: When each entry of these owners, or of all, was last written to, in seconds since the epoch."""
        found = (file for owner in owners or self._owners() for file in _files(owner))
        return [status.st_mtime for _, kind, status in found if _is_used(kind, status)]

    def dead_owners(self) -> Iterator[Path]:
        """Yields the directory of each owner that died, locked until the next step, so that one salvager has it."""
        for owner in self._owners():
            if owner.name in _owned:
                continue
            with _claimed(owner) as claimed:
                if claimed:
                    yield owner

    def entries(self, owner: Path, count: int, *, but: Container[uuid.UUID] = ()) -> list[Entry]:
        """Returns: The oldest entries of an owner that a run was written to, oldest first.

        Parameters:
          owner: The owner's directory.
          count: How many at most.
          but: Ids of entries to leave out.
        """
        used = (
            (status.st_mtime_ns, run_id)
            for run_id, kind, status in _files(owner)
            if _is_used(kind, status) and run_id not in but
        )
        return [Entry(owner, run_id) for _, run_id in heapq.nsmallest(count, used)]

    def remove_abandoned(self, before: float, *, dry_run: bool = False) -> Iterator[int]:
        """Removes what dead owners left and nobody salvaged. Yields the bytes of each entry.

        Parameters:
          before: Seconds since the epoch; what was written later stays.
          dry_run: Whether to yield only.
        """
        for owner in self.dead_owners():
            runs: dict[uuid.UUID, list[tuple[str, os.stat_result]]] = {}
            for run_id, kind, status in _files(owner):
                runs.setdefault(run_id, []).append((kind, status))
            for run_id, files in runs.items():
                if max(status.st_mtime for _, status in files) < before:
                    if not dry_run:
                        Entry(owner, run_id).remove(kind for kind, _ in files)
                    if any(
                        status.st_size > EMPTY_BYTES for _, status in files
                    ):  # Not one that was only made beforehand.
                        yield sum(status.st_size for _, status in files)
            if not dry_run:
                remove_owner(owner)

    def living_owners(self) -> list[Path]:
        """Returns: The directories of processes that are running."""
        dead = {*self.dead_owners()}
        return [owner for owner in self._owners() if owner not in dead]

    def _owners(self) -> list[Path]:
        """Returns: The directories of all owners, living and dead."""
        try:
            with os.scandir(self.root) as entries:
                return [
                    self.root / entry.name
                    for entry in entries
                    if _OWNER_NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
                ]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise SpoolError(f"The spool directory {self.root} cannot be read: {error.strerror}") from error


def _files(owner: Path) -> Iterator[tuple[uuid.UUID, str, os.stat_result]]:
    """Yields run id, kind and status of each regular file of our own pattern."""
    try:
        with os.scandir(owner) as entries:
            for entry in entries:
                match = _FILE_NAME.fullmatch(entry.name)
                if match is not None:
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        yield uuid.UUID(match["run"]), match["kind"], status
    except FileNotFoundError:  # Its owner, or another salvager, removed it meanwhile.
        return


def _is_used(kind: str, status: os.stat_result) -> bool:
    """Returns: Whether it is an entry, and not one that was only made beforehand."""
    return kind == ENTRY_SUFFIX and status.st_size > EMPTY_BYTES


def _is_ready(kind: str, status: os.stat_result) -> bool:
    """Returns: Whether it is an entry that was only made beforehand; each process has a fixed number of them."""
    return kind == ENTRY_SUFFIX and status.st_size <= EMPTY_BYTES


def _disk_bytes(status: os.stat_result) -> int:
    return status.st_blocks * _BLOCK_BYTES + _FILE_BYTES


def _lock(owner: Path) -> int:
    """Takes the lock of an owner's directory. Returns: The descriptor that holds it. Raises: OSError."""
    import fcntl  # Where there is none no worker collects anything, and producers are to import this all the same.

    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(owner / LOCK_FILE, flags, 0o600)
    try:
        # A record lock, as `flock` would be shared with any child that a task forks. It also ends with the process.
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink == 0:
            raise FileNotFoundError(f"{owner} was removed by another salvager")
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def _claimed(owner: Path) -> Iterator[bool]:
    try:
        descriptor = _lock(owner)
    except OSError:  # Locked means alive; anything else is not ours to salvage.
        yield False
        return
    try:
        yield True
    finally:
        os.close(descriptor)


def remove_owner(owner: Path) -> None:
    """Removes an owner's files that no entry speaks for, and the directory if nothing else is left."""
    files = list(_files(owner))
    with_entry = {run_id for run_id, kind, status in files if _is_used(kind, status)}
    for run_id, kind, _ in files:
        if run_id not in with_entry:
            (owner / f"{run_id}.{kind}").unlink(missing_ok=True)
    if not with_entry:
        for name in (STATE_FILE, LOCK_FILE):
            (owner / name).unlink(missing_ok=True)
        try:
            owner.rmdir()
        except OSError as error:
            get_logger(__name__).debug("The spool directory %s stays: %s", owner, error)
