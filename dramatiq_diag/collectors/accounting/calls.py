"""Tells apart the calls of the kernel that a thread is seen in, and names what each of them waits for, once."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

from ...runtime.frames import Look, Place
from ...runtime.waits.gil import GilAddresses
from ...runtime.waits.kernel import KernelWaits
from ...runtime.waits.kernel_files import KernelFiles
from ...runtime.waits.python import purpose_of_thread
from ...runtime.waits.system_calls import SystemCall, names_by_number
from ...runtime.waits.wait import Wait

#: What a thread is seen in besides calls.
RUNNING, GIL, UNKNOWN, SLEEP, PAGE_FAULT = "running", "gil", "unknown", "sleep", "page fault"

#: Calls of which the first argument is a descriptor.
_OF_DESCRIPTOR = frozenset(
    [
        "accept",
        "accept4",
        "close",
        "connect",
        "fcntl",
        "fdatasync",
        "flock",
        "fsync",
        "ftruncate",
        "ioctl",
        "pread64",
        "preadv",
        "pwrite64",
        "pwritev",
        "read",
        "readv",
        "recvfrom",
        "recvmmsg",
        "recvmsg",
        "sendfile",
        "sendmmsg",
        "sendmsg",
        "sendto",
        "splice",
        "sync_file_range",
        "write",
        "writev",
        "epoll_wait",
        "epoll_pwait",
        "epoll_pwait2",
    ]
)
_FUTEXES = ("futex", "restart_syscall")
_SLEEPS = ("clock_nanosleep", "nanosleep")
_LISTS = ("poll", "ppoll", "select", "pselect6", "waitid", "wait4")

#: The innermost places of a thread that tell one lock from another.
_PLACES = 5

#: What is waited for there is told by those who call it.
_LOCK_FILES = ("/threading.py", "/queue.py", "/concurrent/futures/_base.py")

#: The beginning of a phrase about a wait -> that of a noun phrase for what it is for.
_BEGINNINGS = {
    "waits for ": "",
    "waits until ": "",
    "waits in ": "",
    "awaits ": "",
    "reads from ": "",
    "writes to ": "",
    "is ": "",
    "resolves ": "the resolution of ",
}
_ENDINGS = (", without a time limit", " has ended")


class Calls:
    """Reads what `ThreadCalls` gives. For the sampler's thread alone.

    Parameters:
      root: The directory that has `proc`.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._names = names_by_number(platform.machine())
        self._kernel = KernelWaits(root)
        self._gil = GilAddresses(KernelFiles(root, keeps_gil=False))
        self._links = KernelFiles(root, keeps_gil=True)

    def key(self, line: bytes) -> Hashable:
        """Returns: What a line tells without the stack of its thread: a state, or a call and the descriptor it is for.

        Parameters:
          line: A line of `ThreadCalls`.
        """
        if not line:
            return UNKNOWN
        words = line.split(None, 3)
        if words[0] == b"running\n" or words[0] == b"running":
            return RUNNING
        number = int(words[0])
        if number < 0 or len(words) < 3:
            return PAGE_FAULT
        name = self._names.get(number, number)
        first = int(words[1], 16)
        if name in _FUTEXES:
            return GIL if first in self._gil else (_FUTEXES[0], None)
        if name in _SLEEPS:
            return SLEEP
        return name, first if name in _OF_DESCRIPTOR else None

    def place(self, key: Hashable, thread_id: int) -> Hashable:
        """Returns: What tells a wait from others that have the same key: a lock, an open file, who sleeps.

        Parameters:
          key: The key of the line that the thread has now.
          thread_id: The thread, as `threading.get_ident` gives it.
        """
        if key == SLEEP:
            return SLEEP, on_sleep(self._stack(thread_id))
        if not isinstance(key, tuple):
            return key
        name, descriptor = key
        if name in _FUTEXES:
            return _LockKey(self._stack(thread_id)[:_PLACES])
        if descriptor is not None:
            return name, self._links.link(f"proc/self/fd/{descriptor}") or descriptor
        return (name, _key_of(self._stack(thread_id)[:_PLACES])) if name in _LISTS else key

    def _stack(self, thread_id: int) -> list[Place]:
        look = Look()
        places = look.thread(thread_id)
        look.take()
        return places

    def name(self, line: bytes, place: Hashable, thread_id: int, read_again: Callable[[], bytes]) -> str | None:
        """Returns: What a wait is for; None if it could not be told.

        Parameters:
          line: The line of the thread.
          place: Its place.
          thread_id: The thread.
          read_again: Reads the line again. Some calls have their arguments on the stack of the thread, which may go on.
        """
        if isinstance(place, _LockKey):
            return on_lock(place.places)
        if isinstance(place, tuple) and place[0] == SLEEP:
            return str(place[1])
        words = line.split()
        name = PAGE_FAULT if int(words[0]) < 0 else self._names.get(int(words[0]), f"system call {int(words[0])}")
        call = SystemCall(name, tuple(int(word, 16) for word in words[1:7]))
        on = on_of(self._kernel.wait(call, self._stack(thread_id), {}))
        return on if name not in _LISTS or read_again() == line else None


def on_of(wait: Wait) -> str:
    """Returns: A noun phrase for what a wait is for: a peer's address, `sleep`, a file, a lock, a child."""
    if wait.peer:
        return wait.peer
    if wait.kind == "sleep":
        return "sleep"
    text = wait.detail
    for ending in _ENDINGS:
        text = text.removesuffix(ending)
    for beginning, noun in _BEGINNINGS.items():
        if text.startswith(beginning):
            return (noun + text.removeprefix(beginning))[:300]
    return text[:300]


def on_sleep(places: Sequence[Place]) -> str:
    """Returns: A noun phrase for a sleep by the stack of who sleeps.

    It is for a child process where that is looked at again and again, as `Popen.wait` with a time limit does.
    """
    purpose = purpose_of_thread(places)
    return "sleep" if purpose is None else on_of(Wait(purpose.kind, None, purpose.detail.replace(" has ended", "", 1)))


def on_lock(places: Sequence[Place]) -> str:
    """Returns: A noun phrase for a lock, or what else threads wait for each other with, by the stack of the waiter."""
    purpose = purpose_of_thread(places)
    what = "a lock" if purpose is None else purpose.detail.removeprefix("waits for ").removeprefix("waits until ")
    outside = (place for place in places if not place[0].co_filename.endswith(_LOCK_FILES))
    code, at = next(outside, places[0] if places else (None, 0))
    if code is None:
        return what
    return f"{what}, in {code.co_qualname[-100:]} ({os.path.basename(code.co_filename)[-100:]}:{at or 0})"


class _LockKey:
    """Tells one lock from another by the stack of the thread that waits for it."""

    __slots__ = ("_hash", "_key", "places")

    def __init__(self, places: Sequence[Place]) -> None:
        self.places = places
        self._key = _key_of(places)
        self._hash = hash(self._key)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _LockKey) and self._key == other._key


def _key_of(places: Sequence[Place]) -> tuple[tuple[int, int | None], ...]:
    return tuple((id(code), line) for code, line in places)
