"""Explains a call of the kernel that a thread is blocked in, with the help of its Python stack."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ..frames import Place
from .descriptors import Descriptors, Endpoint
from .file_locks import holders_of
from .kernel_files import KernelFiles
from .lock_holders import LockHolders
from .own_memory import OwnMemory, Waited
from .phrases import refined, wait_by_name, wait_for_any, wait_for_one
from .processes import children, describe_process
from .python import purpose_of_thread
from .system_calls import SystemCall
from .wait import Wait

_READS = ("read", "readv", "pread64", "preadv", "recvfrom", "recvmsg", "recvmmsg", "splice", "accept", "accept4")
_WRITES = ("write", "writev", "pwrite64", "pwritev", "sendto", "sendmsg", "sendmmsg", "sendfile")
_SYNCS = ("fsync", "fdatasync", "close", "ftruncate", "fallocate", "sync_file_range", "getdents64")
_PATHS = ("mkdirat", "newfstatat", "openat", "openat2", "renameat2", "statx", "unlinkat")

#: Begin of a function of the kernel -> the call that it is for. A call that a stopped process goes on with has its
#: arguments still, and the name `restart_syscall`.
_BY_FUNCTION = {
    "futex": "futex",
    "hrtimer_nanosleep": "nanosleep",
    "do_nanosleep": "nanosleep",
    "poll_schedule_timeout": "poll",
    "do_poll": "poll",
    "do_sys_poll": "poll",
    "ep_poll": "epoll_wait",
    "do_epoll_wait": "epoll_wait",
    "do_wait": "wait4",
    "pipe_read": "read",
    "anon_pipe_read": "read",
    "unix_stream_read": "recvfrom",
    "skb_wait": "recvfrom",
    "wait_woken": "recvfrom",
    "inet_stream_connect": "connect",
    "locks_lock_inode": "flock",
}

#: Functions of the kernel that wait for the other end of a FIFO. A look at the path could hang as the thread does.
_FIFO_FUNCTIONS = ("fifo_open", "wait_for_partner")

#: `F_SETLKW` and `F_OFD_SETLKW`.
_SET_LOCK_WAITING = (7, 38)

#: `P_PID` and `P_PIDFD`.
_ONE_CHILD, _PIDFD = 1, 3

#: The most children that are named.
_MAX_NAMED = 4


class KernelWaits:
    """Explains calls of the kernel.

    Parameters:
      root: The directory that has `proc`.
    """

    def __init__(self, root: Path) -> None:
        self._others = KernelFiles(root, keeps_gil=False)
        self._memory = OwnMemory(self._others)
        self._descriptors = Descriptors(root)
        self._holders = LockHolders(self._memory)

    def wait(self, call: SystemCall, places: Sequence[Place], holders: dict[int, str]) -> Wait:
        """Returns: What a thread waits for in a call.

        Parameters:
          call: The call.
          places: The stack of the thread, the innermost place first.
          holders: The locks whose holders were looked for at this moment; others are added.
        """
        name = call.name
        if name in ("restart_syscall", "?"):
            name = next((name for start, name in _BY_FUNCTION.items() if call.function.startswith(start)), name)
            call = call._replace(name=name, args=call.args if len(call.args) == 6 else ())
        explain = self._explanation(name)
        if explain is None or not call.args:
            return wait_by_name(call, places)
        wait = refined(replace(explain(call), call=name), places)
        if name == "futex" and not purpose_of_thread(places):
            return self._held(wait, call.args[0], holders)
        return wait

    def _explanation(self, name: str) -> Callable[[SystemCall], Wait] | None:
        if name in _READS:
            return self._read
        if name in _WRITES:
            return self._write
        if name in _SYNCS:
            return self._sync
        if name in _PATHS or name == "open":
            return self._path
        several = {"poll": self._poll, "ppoll": self._poll, "select": self._select, "pselect6": self._select}
        epolls = dict.fromkeys(("epoll_wait", "epoll_pwait", "epoll_pwait2"), self._epoll)
        others = {
            "clock_nanosleep": self._sleep,
            "connect": self._connect,
            "fcntl": self._lock_file,
            "flock": self._lock_file,
            "futex": self._futex,
            "ioctl": self._control,
            "nanosleep": self._sleep,
            "wait4": self._wait_child,
            "waitid": self._wait_child,
        }
        return (several | epolls | others).get(name)

    def _read(self, call: SystemCall) -> Wait:
        return wait_for_one(self._endpoint(call), to_write=False)

    def _write(self, call: SystemCall) -> Wait:
        return wait_for_one(self._endpoint(call), to_write=True)

    def _endpoint(self, call: SystemCall) -> Endpoint:
        return self._descriptors.endpoint(call.args[0], is_pipe="pipe" in call.function)

    def _sync(self, call: SystemCall) -> Wait:
        end = self._endpoint(call)
        return Wait("file", None, f"waits until the kernel is done with {end.what} ({call.name})")

    def _path(self, call: SystemCall) -> Wait:
        path = self._memory.text(call.args[0 if call.name == "open" else 1]) or "a file"
        if call.function in _FIFO_FUNCTIONS:
            return Wait("pipe", None, f"waits until another process opens the other end of the FIFO {path}")
        return Wait("file", None, f"waits until the kernel is done with {path} ({call.name})")

    def _connect(self, call: SystemCall) -> Wait:
        data = self._memory.read(call.args[1], min(call.args[2], 128))
        return wait_for_one(self._descriptors.address(data), to_write=True)

    def _poll(self, call: SystemCall) -> Wait:
        polled = self._memory.polled(call.args[0], call.args[1])
        has_limit = bool(call.args[2]) if call.name == "ppoll" else _signed(call.args[2]) >= 0
        return self._several(polled, has_limit=has_limit)

    def _select(self, call: SystemCall) -> Wait:
        return self._several(self._memory.selected(*call.args[:3]), has_limit=bool(call.args[4]))

    def _epoll(self, call: SystemCall) -> Wait:
        limit = call.args[3]
        has_limit = bool(limit) if call.name == "epoll_pwait2" else _signed(limit) >= 0
        return self._several(self._descriptors.watched(call.args[0]), has_limit=has_limit)

    def _several(self, waited: Sequence[Waited], *, has_limit: bool) -> Wait:
        ends = [(self._descriptors.endpoint(number), to_write) for number, to_write in waited]
        if not ends:
            return Wait("sleep", None, "sleeps" if has_limit else "waits for a signal")
        telling = [(end, to_write) for end, to_write in ends if end.peer or end.kind in ("child", "pipe")] or ends
        if len(telling) == 1:
            end, to_write = telling[0]
            return wait_for_one(end, to_write=to_write, has_limit=has_limit)
        return wait_for_any([end for end, _ in telling])

    def _futex(self, call: SystemCall) -> Wait:
        limit = "" if call.args[3] else ", without a time limit"
        return Wait("lock", None, f"waits for a lock, or for another thread in C code{limit}")

    def _held(self, wait: Wait, semaphore: int, holders: dict[int, str]) -> Wait:
        """Returns: The wait for a lock with the thread that holds it, if one is found."""
        if semaphore not in holders:
            holders[semaphore] = self._holders.describe(semaphore)
        return replace(wait, detail=f"waits for a lock that {holders[semaphore]}") if holders[semaphore] else wait

    def _sleep(self, call: SystemCall) -> Wait:
        """The arguments are clock, flags and time, or the time alone."""
        if call.name == "nanosleep":
            seconds, is_deadline, clock = self._memory.seconds(call.args[0]), False, 0
        else:
            seconds, is_deadline, clock = self._memory.seconds(call.args[2]), bool(call.args[1] & 1), call.args[0]
        if seconds is None or clock > time.CLOCK_BOOTTIME:
            return Wait("sleep", None, "sleeps")
        if is_deadline:
            return Wait("sleep", None, f"sleeps for {max(seconds - time.clock_gettime(clock), 0):.3g} s more")
        return Wait("sleep", None, f"sleeps for {seconds:.3g} s")

    def _lock_file(self, call: SystemCall) -> Wait:
        end = self._endpoint(call)
        if call.name == "fcntl" and call.args[1] not in _SET_LOCK_WAITING:
            return Wait("file", None, f"waits until the kernel is done with {end.what} (fcntl)")
        holders = " and ".join(holders_of(call.args[0], self._others))
        held = f", which is held by {holders}" if holders else ""
        return Wait("file", None, f"waits for the lock ({call.name}) of {end.what}{held}")

    def _control(self, call: SystemCall) -> Wait:
        end = self._endpoint(call)
        return Wait(end.kind, None, f"waits for {end.what} (ioctl)", end.peer)

    def _wait_child(self, call: SystemCall) -> Wait:
        which, number = (_ONE_CHILD, _signed(call.args[0])) if call.name == "wait4" else call.args[:2]
        if which == _PIDFD:
            return wait_for_one(self._descriptors.endpoint(number), to_write=False)
        waited = [number] if which == _ONE_CHILD and number > 0 else children(self._others)
        named = " or ".join(describe_process(each, self._others) for each in waited[:_MAX_NAMED])
        return Wait("child", None, f"waits until {named or 'a child process'} has ended")


def _signed(value: int) -> int:
    """Returns: A register as the `int` of C that it has."""
    return (value & 0xFFFFFFFF) - (1 << 32) if value & 0x80000000 else value & 0xFFFFFFFF
