"""Reads which call of the kernel each thread of this process is in, without giving up the GIL."""

from __future__ import annotations

import errno
import os
import platform
import sys
from collections.abc import Iterable
from typing import NamedTuple

from .kernel_files import KernelFiles

#: A line of `/proc/self/task/<id>/syscall`, `stat` or `wchan` is shorter.
_MAX_BYTES = 400

#: The errors of opening a file of a thread that has ended, and of reading one that was opened before its end.
_ENDED = (errno.ENOENT, errno.ESRCH)

#: Name -> its number on x86_64 and on aarch64.
_NUMBERS: dict[str, tuple[int, int]] = {
    "accept": (43, 202),
    "accept4": (288, 242),
    "clock_nanosleep": (230, 115),
    "clone": (56, 220),
    "clone3": (435, 435),
    "close": (3, 57),
    "connect": (42, 203),
    "copy_file_range": (326, 285),
    "epoll_pwait": (281, 22),
    "epoll_pwait2": (441, 441),
    "fallocate": (285, 47),
    "fcntl": (72, 25),
    "fdatasync": (75, 83),
    "flock": (73, 32),
    "fsync": (74, 82),
    "ftruncate": (77, 46),
    "futex": (202, 98),
    "getdents64": (217, 61),
    "io_getevents": (208, 4),
    "io_uring_enter": (426, 426),
    "ioctl": (16, 29),
    "mkdirat": (258, 34),
    "mq_timedreceive": (243, 183),
    "mq_timedsend": (242, 182),
    "msgrcv": (70, 188),
    "msgsnd": (69, 189),
    "msync": (26, 227),
    "nanosleep": (35, 101),
    "newfstatat": (262, 79),
    "openat": (257, 56),
    "openat2": (437, 437),
    "ppoll": (271, 73),
    "pread64": (17, 67),
    "preadv": (295, 69),
    "pselect6": (270, 72),
    "pwrite64": (18, 68),
    "pwritev": (296, 70),
    "read": (0, 63),
    "readv": (19, 65),
    "recvfrom": (45, 207),
    "recvmmsg": (299, 243),
    "recvmsg": (47, 212),
    "renameat2": (316, 276),
    "restart_syscall": (219, 128),
    "rt_sigsuspend": (130, 133),
    "rt_sigtimedwait": (128, 137),
    "semop": (65, 193),
    "semtimedop": (220, 192),
    "sendfile": (40, 71),
    "sendmmsg": (307, 269),
    "sendmsg": (46, 211),
    "sendto": (44, 206),
    "splice": (275, 76),
    "statx": (332, 291),
    "sync": (162, 81),
    "sync_file_range": (277, 84),
    "unlinkat": (263, 35),
    "wait4": (61, 260),
    "waitid": (247, 95),
    "write": (1, 64),
    "writev": (20, 66),
}

#: Calls that x86_64 alone has.
_ONLY_X86_64: dict[str, int] = {
    "epoll_wait": 232,
    "open": 2,
    "pause": 34,
    "poll": 7,
    "select": 23,
    "vfork": 58,
}


class SystemCall(NamedTuple):
    """The call that a thread is blocked in."""

    name: str
    "`page fault` outside a call, `?` where the kernel does not tell which it is."
    args: tuple[int, ...] = ()
    "Its six arguments; empty where the kernel does not tell them."
    function: str = ""
    "The function of the kernel that it sleeps in; empty if unknown."


#: What a thread that runs, or could run, is in.
RUNNING = SystemCall("running")


class SystemCallReader:
    """Reads the calls of other threads. No right is needed for the threads of one's own process.

    Parameters:
      files: Reads /proc.
    """

    def __init__(self, files: KernelFiles) -> None:
        self._files = files
        self._names = names_by_number(platform.machine())
        self.missing: str | None = None
        "A sentence about what could not be read at the last look."

    def read(self, native_ids: Iterable[int]) -> dict[int, SystemCall]:
        """Returns: Native id of a thread -> its call; without those of which nothing can be told."""
        self.missing = None
        if sys.platform != "linux":
            self.missing = f"The calls of threads are known on Linux alone, not on {sys.platform}."
            return {}
        # All lines first: they should be of one moment.
        lines = {native_id: self._line(native_id, "syscall") for native_id in native_ids}
        return {native_id: call for native_id, line in lines.items() if (call := self._call(native_id, line))}

    def is_still(self, native_id: int, call: SystemCall) -> bool:
        """Returns: Whether a thread is in a call, or in one that looks the same, a moment after it was read."""
        return self._call(native_id, self._line(native_id, "syscall")) == call

    def _call(self, native_id: int, line: bytes) -> SystemCall | None:
        """Returns: The call of a line: `running`, or a number, arguments and addresses."""
        if not line:
            return self._by_state(native_id)
        number, *values = line.split()
        if number == b"running":
            return RUNNING
        function = self._function(native_id)
        if number == b"-1":
            return SystemCall("page fault", function=function)
        name = self._names.get(int(number), f"system call {int(number)}")
        return SystemCall(name, tuple(int(value, 16) for value in values[:6]), function)

    def _by_state(self, native_id: int) -> SystemCall | None:
        """Returns: What `stat` tells where `syscall` cannot be read, as under gVisor; None if the thread has ended."""
        state = self._line(native_id, "stat").rpartition(b")")[2].split()[:1]
        if not state:
            return None
        return RUNNING if state == [b"R"] else SystemCall("?", function=self._function(native_id))

    def _function(self, native_id: int) -> str:
        """Returns: The function of the kernel that a thread sleeps in; empty if the kernel does not tell."""
        name = self._line(native_id, "wchan").decode("ascii", "replace").partition(".")[0]
        return "" if name == "0" else name

    def _line(self, native_id: int, name: str) -> bytes:
        """Returns: The bytes of a file; empty if it cannot be read or the thread has ended."""
        path = f"proc/self/task/{native_id}/{name}"
        data = self._files.read(path, _MAX_BYTES)
        error = self._files.error
        if error and (error not in _ENDED or not self._files.read("proc/self/stat", 1)):
            reason = f"{self._files.path(path)} cannot be read: {os.strerror(error)}"
            self.missing = self.missing or f"The calls of threads are not known, as {reason}."
        return data


def names_by_number(machine: str) -> dict[int, str]:
    """Returns: Number -> name of a call; empty for other machines than the two that are known."""
    if machine == "x86_64":
        common = {numbers[0]: name for name, numbers in _NUMBERS.items()}
        return common | {number: name for name, number in _ONLY_X86_64.items()}
    if machine in ("aarch64", "arm64"):
        return {numbers[1]: name for name, numbers in _NUMBERS.items()}
    return {}
