"""Lets interrupts strike a task's thread at the instructions of the hooks, one after the other.

An interrupt of Dramatiq's is an asynchronous exception: it is set by another thread, and raised when the thread that it
is for next looks for it, which is at calls and at jumps backward. Here a trace function sets it before the chosen
instruction, and the interpreter raises it where it does so in real life.

Run as a script of its own, which may hang: `python -m support.strikes DIRECTORY COUNT SETTINGS ATTACHED`. ATTACHED are
the names of diagnostics that are attached to each run; then only the end of runs is struck.
"""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

import dramatiq
from dramatiq import Worker
from dramatiq.broker import MessageProxy
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import Interrupt, TimeLimitExceeded

from dramatiq_diag import Diagnostics, Settings
from dramatiq_diag.collectors.resources import _ResourcesRecording
from dramatiq_diag.worker.attachments import AttachRefusedError
from dramatiq_diag.worker.executions import Execution
from support import PATIENCE_S

_set_async_exc = ctypes.pythonapi.PyThreadState_SetAsyncExc
_set_async_exc.argtypes = [ctypes.c_ulong, ctypes.py_object]

#: A place in the code of a hook, or of what it calls.
Place = tuple[CodeType, int]


class Striker:
    """Counts the instructions of what runs inside of `at_work`, and strikes before the chosen one."""

    def __init__(self) -> None:
        self.chosen = 0
        self.count = 0
        self.struck: Place | None = None
        self.places: list[Place] | None = None
        self.thread_id = threading.get_ident()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        sys.settrace(self._enter)
        try:
            yield
        finally:
            sys.settrace(None)

    def _enter(self, frame: FrameType, event: str, arg: Any) -> Any:
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._look

    def _look(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "opcode" and self.struck is None:
            self.count += 1
            if self.places is not None:
                self.places.append((frame.f_code, frame.f_lasti))
            if self.count == self.chosen:
                self.struck = frame.f_code, frame.f_lasti
                # Nothing is to look for the exception but the code that is struck: this function is not called again,
                # and `map` makes the call in C.
                sys.settrace(None)
                [_] = map(_set_async_exc, (self.thread_id,), (TimeLimitExceeded,))
        return self._look


class Task:
    """Executes messages as a worker does, with a striker in the hooks.

    Parameters:
      attached: The names of what is attached to each run, before its end.
    """

    def __init__(self, broker: StubBroker, diagnostics: Diagnostics, attached: Sequence[str] = ()) -> None:
        self.broker, self.diagnostics = broker, diagnostics
        self._attached = attached
        self.actor = dramatiq.actor(_work, actor_name="work", broker=broker)
        self.begun: list[str] = []
        "The ids of messages of which a run had been made."
        self.attachment_ids: list[str] = []
        "Of those that had begun."

    def execute(self, before: Striker | None = None, after: Striker | None = None, *, cpu_s: float = 0.0) -> str:
        """Returns: The id of the message."""
        message = MessageProxy(self.actor.message())
        try:
            try:
                try:
                    self._hook(before, self.diagnostics.before_process_message, message)
                finally:
                    if threading.get_ident() in self.diagnostics.process.runs:
                        self.begun.append(message.message_id)
                if self._attached:
                    self._attach(message)
                self.actor(cpu_s)
                self._hook(after, self.diagnostics.after_process_message, message)
            except Interrupt as interrupt:
                self.diagnostics.after_process_message(self.broker, message, exception=interrupt)
        finally:
            self.diagnostics.after_ack(self.broker, message)
        return str(message.message_id)

    def _attach(self, message: MessageProxy) -> None:
        """Attaches to the run of this thread. Returns when all collectors have begun."""
        process, thread_id = self.diagnostics.process, threading.get_ident()
        run = process.runs[thread_id]
        execution = Execution(
            thread_id=thread_id, message=message, since=(run.started_at_s, run.started), age_s=0.0, run=run
        )
        attachment_id, request = uuid.uuid4(), {name: {} for name in self._attached}
        try:
            process.attachments.begin(attachment_id, execution, request, 600.0)
        except AttachRefusedError:  # Too many are on their way to the store.
            self.diagnostics.flush(PATIENCE_S)
            process.attachments.begin(attachment_id, execution, request, 600.0)
        self.attachment_ids.append(str(attachment_id))
        begun = threading.Event()
        process.services.ticker.call_soon(begun.set)  # Behind the call that begins it.
        begun.wait(PATIENCE_S)

    def _hook(self, striker: Striker | None, hook: Callable[..., None], message: MessageProxy) -> None:
        if striker is None:
            hook(self.broker, message)
            return
        with striker.at_work():
            hook(self.broker, message)
            _give_way()  # What was set at the last instruction is raised here.


def _give_way() -> None:
    for _ in range(3):
        time.sleep(0)


def _work(cpu_s: float) -> None:
    """Uses CPU time: where a thread has to wait for a processor, so do those that look at the task meanwhile."""
    ends = time.thread_time() + cpu_s
    while time.thread_time() < ends:
        sum(range(1000))


def _chosen(places: list[Place], count: int) -> list[int]:
    """Returns: The numbers of so many instructions, of all places as evenly as there are so many."""
    first: dict[Place, int] = {}
    for number, place in enumerate(places, 1):
        first.setdefault(place, number)
    numbers = list(first.values())
    return numbers[:: max(len(numbers) // count, 1)][:count]


def strike_all(task: Task, count: int, *, ends_alone: bool) -> dict[str, Any]:
    """Strikes so many times, in equal shares in both hooks, or in the one at the end alone."""
    for _ in range(
        3
    ):  # What is imported, or cached, the first time; Python 3.12 traces instructions from the second on.
        task.execute(Striker(), Striker())
    dry = Striker(), Striker()
    for striker in dry:
        striker.places = []
    task.execute(*dry)
    found: dict[str, Any] = {"places": [len(set(striker.places or ())) for striker in dry], "strikes": 0}
    for is_after, striker in enumerate(dry):
        if ends_alone and not is_after:
            continue
        wanted = count if ends_alone else count // 2
        numbers = _chosen(striker.places or [], 2 * wanted)
        # The second half takes the place of instructions that a run did not come by, or that are not traced: Python
        # 3.13 does not trace all of them in the hooks after one that was struck.
        for number in (*numbers[::2], *numbers[1::2]):
            for _ in range(2):
                if not wanted:
                    break
                armed = Striker()
                armed.chosen = number
                task.execute(*((None, armed) if is_after else (armed, None)))
                _check(task, armed)
                if armed.struck is not None:
                    found["strikes"] += 1
                    wanted -= 1
                    break
    return found


def _check(task: Task, striker: Striker) -> None:
    process = task.diagnostics.process
    where = striker.struck and f"{striker.struck[0].co_qualname}+{striker.struck[1]}"
    assert not process.runs, f"a run goes on: {where}"
    assert sys.getprofile() is None, f"a profile function is left: {where}"
    assert threading.getprofile() is None, f"threads that start get a profile function: {where}"
    assert "_name" not in vars(threading.Thread), f"memray still follows the names of threads: {where}"


def descriptors_of(directory: str) -> list[str]:
    links = (os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd"))
    return [
        found for found in (os.readlink(link) for link in links if os.path.islink(link)) if found.startswith(directory)
    ]


def main(directory: str, count: int, values: dict[str, Any], attached: Sequence[str]) -> None:
    logging.disable(logging.CRITICAL)
    # Its steps go through threads of their own. Not beside memray on Python 3.11: there those threads stand still while
    # an interrupt waits. In a worker the Tracker is ended before an interrupt is raised; the striker does not do that.
    _ResourcesRecording.runs_inline = "memray" in values["task_diagnostics"] and sys.version_info < (3, 12)
    settings = Settings(data_dir=directory, cleanup_interval=0, **values)
    broker = StubBroker(middleware=[])
    diagnostics = Diagnostics(settings)
    broker.add_middleware(diagnostics)
    worker = Worker(broker, worker_threads=1)
    diagnostics.before_worker_boot(broker, worker)
    process = diagnostics.process
    assert process is not None
    task = Task(broker, diagnostics, attached)
    result: dict[str, Any] = {}
    thread = threading.Thread(target=lambda: result.update(strike_all(task, count, ends_alone=bool(attached))))
    thread.start()
    thread.join()
    # A whole run follows, on a thread that no interrupt has met.
    result["whole"] = task.execute(cpu_s=0.3)
    result["flushed"] = diagnostics.flush(PATIENCE_S)
    result["begun"], result["attached"] = task.begun, task.attachment_ids
    entries = [name for name in descriptors_of(f"{directory}/") if name.endswith(".entry")]
    result["entries_open"] = len(entries) - len(process.spool.ready)
    result["left"] = [len(process.runs), len(process.unsaved), len(process.messages)]
    diagnostics.after_worker_shutdown(broker, worker)
    result["descriptors"] = descriptors_of(f"{directory}/")
    result["threads"] = [thread.name for thread in threading.enumerate() if thread.name.startswith("dramatiq_diag")]
    # Here: the publisher changes both while it works, and goes on for a moment after a flush.
    result["switch_interval_s"], result["is_collecting"] = sys.getswitchinterval(), gc.isenabled()
    broker.close()
    sys.stdout.write(f"{json.dumps(result)}\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]), json.loads(sys.argv[4]))
