"""How soon the kernel lets a thread run when it wakes.

A sample tells what a task did when it was taken, not when it was due. Under Linux's scheduler a thread that wakes may
wait for 3 ms behind a busy one of the same CPU, and by then that one may sleep: what keeps a CPU busy is seen too
seldom. Both settings are open to every process.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
import threading
from contextlib import suppress

#: Who asks for a short turn gets it soon (Linux 6.12 and later), in nanoseconds.
_SLICE_NS = 100_000
#: How late the kernel may end a sleep to end another one with it, in nanoseconds; 50,000 without this.
_TIMER_SLACK_NS = 1_000

_SCHED_NORMAL = 0
#: Machine -> the number of the system call sched_setattr, which the C library of 2022 has no function for.
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
#: size, policy, flags, nice, priority, runtime, deadline, period: the kernel's `struct sched_attr`.
_SCHED_ATTR = struct.Struct("=IIQiIQQQ")


def wake_promptly() -> None:
    """Asks for it on behalf of the calling thread; where the kernel refuses or is another, nothing changes."""
    if sys.platform != "linux":
        return
    # Where there is no such file, or it may not be written, the slack is that of every thread.
    with suppress(OSError), open(f"/proc/{threading.get_native_id()}/timerslack_ns", "w", encoding="ascii") as file:
        file.write(str(_TIMER_SLACK_NS))
    number = _SCHED_SETATTR.get(platform.machine())
    if number is None or _is_filtered() or os.sched_getscheduler(0) != _SCHED_NORMAL:
        return
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    attributes = _SCHED_ATTR.pack(_SCHED_ATTR.size, _SCHED_NORMAL, 0, nice, 0, _SLICE_NS, 0, 0)
    ctypes.CDLL(None).syscall(number, 0, attributes, 0)


def _is_filtered() -> bool:
    """Returns: Whether the calling thread is under a filter of system calls, or may be.

    A call that a filter does not let through may end the process, as with systemd's `SystemCallFilter=~@resources`.
    There is no way to ask beforehand.
    """
    try:
        with open("/proc/thread-self/status", encoding="ascii", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return True
    return any(line.startswith("Seccomp:") and line.split()[1:] != ["0"] for line in lines)
