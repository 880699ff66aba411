"""How soon the kernel lets a thread run when it wakes.

A sample tells what a task did when it was taken, not when it was due. Under Linux's scheduler a thread that wakes may
wait for 3 ms behind a busy one of the same CPU, and by then that one may sleep: what keeps a CPU busy is seen too
seldom. Both calls are open to every process; Python has no function of its own for either.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

#: Who asks for a short turn gets it soon (Linux 6.12 and later), in nanoseconds.
_SLICE_NS = 100_000
#: How late the kernel may end a sleep to end another one with it, in nanoseconds; 50,000 without this.
_TIMER_SLACK_NS = 1_000

_PR_SET_TIMERSLACK = 29
_SCHED_NORMAL = 0
#: Machine -> the number of the system call sched_setattr, which the C library of 2022 has no function for.
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
#: size, policy, flags, nice, priority, runtime, deadline, period: the kernel's `struct sched_attr`.
_SCHED_ATTR = struct.Struct("=IIQiIQQQ")


def wake_promptly() -> None:
    """Asks for it on behalf of the calling thread; where the kernel refuses or is another, nothing changes."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(_TIMER_SLACK_NS))
    number = _SCHED_SETATTR.get(platform.machine())
    if number is not None and os.sched_getscheduler(0) == _SCHED_NORMAL:
        nice = os.getpriority(os.PRIO_PROCESS, 0)
        attributes = _SCHED_ATTR.pack(_SCHED_ATTR.size, _SCHED_NORMAL, 0, nice, 0, _SLICE_NS, 0, 0)
        libc.syscall(number, 0, attributes, 0)
