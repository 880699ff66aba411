"""Tells what threads of this process do right now: run, wait for the GIL, or wait for something outside Python."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from .frames import Look, Place
from .waits.gil import GilAddresses
from .waits.kernel import KernelWaits
from .waits.kernel_files import KernelFiles
from .waits.python import purpose_of_thread
from .waits.system_calls import RUNNING, SystemCall, SystemCallReader
from .waits.wait import ThreadState, Wait

#: For how long the CPU time of threads is measured that compete for the GIL, in seconds.
_MEASURED_S = 0.02

#: A thread that had this part of the time in which the GIL was held is the one that runs.
_MOST = 0.5

_NOT_THERE = Wait("unknown", None, "is not among the threads: it has ended, or it is a greenlet that runs just now")

_UNKNOWN = Wait("unknown", None, "may wait or run: it is not known which")


class ThreadStateReader:
    """Reads the states of threads from another thread of the same process.

    Parameters:
      root: The directory that has `proc`.
      measured_s: For how long it measures who has the GIL, where several threads compete for it, in seconds.
    """

    def __init__(self, root: Path = Path("/"), measured_s: float = _MEASURED_S) -> None:
        self._calls = SystemCallReader(KernelFiles(root, keeps_gil=True))
        self._kernel = KernelWaits(root)
        self._gil = GilAddresses(KernelFiles(root, keeps_gil=False))
        self._measured_s = measured_s

    @property
    def missing(self) -> str | None:
        """A sentence about what could not be read at the last look; None if nothing is missing."""
        return self._calls.missing

    def read(
        self, native_ids: Iterable[int], stacks: Mapping[int, Sequence[Place]] | None = None
    ) -> dict[int, ThreadState]:
        """Returns: Native id of a thread -> its state; threads that have ended are left out.

        It gives up the GIL for `measured_s` if several threads compete for it.

        Parameters:
          native_ids: The ids that the kernel gave the threads.
          stacks: Native id -> the places of the thread, the innermost first; they are read if they are not given.
        """
        wanted = list(native_ids)
        found = _stacks_of(wanted) if stacks is None else stacks
        calls = self._calls.read(wanted)
        competing = [native_id for native_id, call in calls.items() if self._is_for_gil(call)]
        states: dict[int, ThreadState] = {}
        holders: dict[int, str] = {}
        for native_id in wanted:
            places, call = found.get(native_id, ()), calls.get(native_id)
            if call is RUNNING:
                states[native_id] = ThreadState("running")
            elif call is not None and native_id not in competing:
                states[native_id] = ThreadState("blocked", self._wait(native_id, call, places, holders))
            elif call is None and places and self.missing:
                states[native_id] = _state_of_stack(places)
        return states | self._gil_states(competing)

    def _is_for_gil(self, call: SystemCall) -> bool:
        """Returns: Whether it is for the GIL, also as a process goes on that was stopped meanwhile."""
        return call.name in ("futex", "restart_syscall") and bool(call.args) and call.args[0] in self._gil

    def _wait(self, native_id: int, call: SystemCall, places: Sequence[Place], holders: dict[int, str]) -> Wait:
        """Returns: The wait in a call; if the thread went on meanwhile, the arguments tell nothing."""
        wait = self._kernel.wait(call, places, holders)
        if self._calls.is_still(native_id, call):
            return wait
        return self._kernel.wait(call._replace(args=()), places, holders)

    def _gil_states(self, competing: Sequence[int]) -> dict[int, ThreadState]:
        """Returns: The states of threads that wait for the GIL, which this thread has at this moment.

        A single one had it before. Where there are several, their CPU times tell who had it.
        """
        if len(competing) == 1:
            return {competing[0]: ThreadState("running")}
        if not competing:
            return {}
        before = {native_id: cpu_s(native_id) or 0.0 for native_id in competing}
        time.sleep(self._measured_s)
        used = {native_id: max((cpu_s(native_id) or 0.0) - before[native_id], 0.0) for native_id in competing}
        total = sum(used.values()) or 1.0
        shares = {native_id: seconds / total for native_id, seconds in used.items()}
        first = max(shares, key=shares.__getitem__)
        names = {thread.native_id: thread.name for thread in threading.enumerate()}
        who = f"the thread {names.get(first, '?')!r:.100}"
        return {
            native_id: ThreadState("running") if share >= _MOST else _waiting(share, who, shares[first], len(shares))
            for native_id, share in shares.items()
        }


def cpu_s(native_id: int) -> float | None:
    """Returns: The CPU time of a thread in seconds; None if it has ended, or the platform does not tell.

    Note:
      `time.pthread_getcpuclockid` would read freed memory of a thread that has ended. The kernel checks its own ids.
    """
    try:
        return time.clock_gettime((~native_id << 3) | 6)
    except (OSError, AttributeError):  # Windows has no such function.
        return None


def state_of_greenlet(places: Sequence[Place]) -> ThreadState:
    """Returns: The state of a greenlet that does not run, as its functions tell it."""
    return ThreadState("awaiting", _state_of_stack(places).wait) if places else ThreadState("blocked", _NOT_THERE)


def _waiting(share: float, who: str, most: float, count: int) -> ThreadState:
    runs = f"{who} has it most of the time" if most >= _MOST else f"{count} threads compete for it"
    return ThreadState("gil_wait", Wait("gil", "futex", f"waits for the GIL: {runs}; it has it {share:.0%} itself"))


def _state_of_stack(places: Sequence[Place]) -> ThreadState:
    purpose = purpose_of_thread(places)
    return ThreadState("blocked", _UNKNOWN if purpose is None else Wait(purpose.kind, None, purpose.detail))


def _stacks_of(native_ids: Sequence[int]) -> dict[int, list[Place]]:
    idents = {thread.native_id: thread.ident for thread in threading.enumerate()}
    look = Look()
    stacks = {native_id: look.thread(idents.get(native_id) or 0) for native_id in native_ids}
    look.take()
    return stacks
