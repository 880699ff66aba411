"""Asks the kernel to run a thread soon after it wakes.

A late sample shows what a task does at that moment, not what it did when the sample was due. On Linux a thread that
wakes may wait for 3 ms behind a busy thread of the same CPU. By then the busy thread may sleep, so that samples would
find it busy too seldom. Two settings of the thread shorten the wait, and every process may change them.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
import threading
from contextlib import suppress

#: A thread that asks for a short time slice gets it soon (Linux 6.12 and later), in nanoseconds.
_SLICE_NS = 100_000
#: How late the kernel may end a sleep, in nanoseconds; the default is 50,000.
_TIMER_SLACK_NS = 1_000

_SCHED_NORMAL = 0
#: Machine -> the number of the system call sched_setattr; the C library of 2022 has no function for it.
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
#: size, policy, flags, nice, priority, runtime, deadline, period: the kernel's `struct sched_attr`.
_SCHED_ATTR = struct.Struct("=IIQiIQQQ")


def wake_promptly() -> None:
    """Asks for the calling thread; if the kernel refuses, or is not Linux, nothing changes."""
    if sys.platform != "linux":
        return
    # Without the file, or the right to write it, the slack is the default.
    with suppress(OSError), open(f"/proc/{threading.get_native_id()}/timerslack_ns", "w", encoding="ascii") as file:
        file.write(str(_TIMER_SLACK_NS))
    number = _SCHED_SETATTR.get(platform.machine())
    if number is None or _is_filtered() or os.sched_getscheduler(0) != _SCHED_NORMAL:
        return
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    attributes = _SCHED_ATTR.pack(_SCHED_ATTR.size, _SCHED_NORMAL, 0, nice, 0, _SLICE_NS, 0, 0)
    ctypes.CDLL(None).syscall(number, 0, attributes, 0)


def _is_filtered() -> bool:
    """Returns: True if the calling thread is under a filter of system calls, or may be; False if it is not.

    A call that the filter forbids may end the process, as with systemd's `SystemCallFilter=~@resources`, and a program
    cannot ask beforehand.
    """
    try:
        with open("/proc/thread-self/status", encoding="ascii", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return True
    return any(line.startswith("Seccomp:") and line.split()[1:] != ["0"] for line in lines)
