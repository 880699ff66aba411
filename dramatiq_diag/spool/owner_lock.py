"""Locks a spool directory for as long as its worker process lives, so that others can tell whether it does."""

from __future__ import annotations

import errno
import os
import stat
import uuid
from pathlib import Path

LOCK_FILE = "owner.lock"

#: The error numbers of `lockf` on a file system that has no locks.
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}

_STORE_ID_LENGTH = len(str(uuid.UUID(int=0)))

#: Process id and directory name -> the lock that this process holds. Record locks never conflict within a process, and
#: closing any descriptor of a locked file drops its locks, so a second lock on the same directory is refused here.
#: `setdefault` is atomic. A forked child inherits this dict but no lock, hence the process id.
_held: dict[tuple[int, str], OwnerLock] = {}


class AnotherStoreError(OSError):
    """The directory belongs to a worker of another store; a worker of that store publishes what is in it."""


class OwnerLock:
    """The lock of an owner's directory, held until it is closed or the process ends.

    A record lock, as `flock` would be shared with any child that a task forks.

    Raises:
      BlockingIOError: When it is locked already, by this process or another one.
      FileNotFoundError: When the directory is gone.
      OSError: When it cannot be locked.
    """

    def __init__(self, owner: Path) -> None:
        self._path = owner / LOCK_FILE
        self._key = (os.getpid(), owner.name)
        if _held.setdefault(self._key, self) is not self:
            raise BlockingIOError(errno.EAGAIN, "It is locked by this process")
        try:
            self._descriptor = _lock(self._path)
        except BaseException:
            del _held[self._key]
            raise

    def is_in_place(self) -> bool:
        """Returns: Whether the lock file still stands in its directory; True where that cannot be told."""
        try:
            return os.path.samestat(os.lstat(self._path), os.fstat(self._descriptor))
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True

    def touch(self) -> None:
        """Sets the time of the file, as programs that remove old files would remove it. Raises: OSError."""
        os.utime(self._descriptor)

    def note_store(self, store_id: uuid.UUID) -> None:
        """Writes the id of the store that the owner publishes into. Raises: OSError."""
        os.pwrite(self._descriptor, str(store_id).encode(), 0)

    def store_id(self) -> uuid.UUID | None:
        """Returns: The id that the owner wrote; None where it wrote none, as it never reached its store."""
        try:
            return uuid.UUID(os.pread(self._descriptor, _STORE_ID_LENGTH, 0).decode("ascii"))
        except ValueError:
            return None

    def close(self) -> None:
        """Releases the lock, then its entry in `_held`. In the other order it could drop the lock of the next owner."""
        os.close(self._descriptor)
        _held.pop(self._key, None)


def _lock(path: Path) -> int:
    """Takes a lock. Returns: The descriptor that holds it. Raises: OSError."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, f"{path.name} is not a regular file")
        try_lock(descriptor)
        if os.fstat(descriptor).st_nlink == 0:
            raise FileNotFoundError(errno.ENOENT, f"{path.parent} was removed by another salvager")
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def try_lock(descriptor: int) -> None:
    """Locks a file until the descriptor is closed. Raises: BlockingIOError when it is locked; OSError."""
    import fcntl  # Not on every platform; there no worker collects, but producers import this module.

    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except PermissionError as error:  # POSIX allows this answer for a lock that is held.
        raise BlockingIOError(errno.EAGAIN, "It is locked") from error
