"""Calls of threads are read at planned moments, also while no thread can have the GIL."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from dramatiq_diag.runtime.timed_calls import TimedCalls
from support import PATIENCE_S, eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Only glibc on Linux has what this needs")


@contextmanager
def reading():
    """Yields the native id of a thread that reads from an empty pipe, and the pipe's other end."""
    read, write = os.pipe()
    thread = threading.Thread(target=os.read, args=(read, 1))
    thread.start()
    try:
        call = Path(f"/proc/self/task/{thread.native_id}/syscall")
        eventually(lambda: f"{read:#x}" in call.read_text().split(), "it reads")
        yield thread.native_id, read
    finally:
        os.write(write, b"x")
        thread.join()
        os.close(read)
        os.close(write)


def descriptors():
    return set(os.listdir("/proc/self/fd"))


def test_moments_come_in_their_order_with_the_lines_of_the_threads():
    with reading() as (native_id, descriptor), closing(TimedCalls.opened(3)) as calls:
        now_s = time.perf_counter()
        for number in range(3):
            at_s = now_s + 0.01 * number
            calls.plan(at_s, at_s + 0.01, {native_id, threading.get_native_id()})
        assert (calls.planned, calls.free) == (3, 0)

        moments = [moment for count in (1, 1, 1) if calls.planned for moment in calls.take(count)]

        assert time.perf_counter() >= now_s + 0.02
        assert [round(moment.at_s - now_s, 3) for moment in moments] == [0.0, 0.01, 0.02]
        assert [round(moment.until_s - now_s, 3) for moment in moments] == [0.01, 0.02, 0.03]
        for moment in moments:
            assert moment.lines.keys() == {native_id, threading.get_native_id()}
            assert int(moment.lines[native_id].split()[1], 16) == descriptor
        assert (calls.planned, calls.free) == (0, 3)


def test_a_moment_is_read_while_a_thread_keeps_the_gil():
    keeping_gil = ctypes.PyDLL(None)
    with reading() as (native_id, descriptor), closing(TimedCalls.opened(1)) as calls:
        calls.plan(time.perf_counter() + 0.05, 0.0, {threading.get_native_id(), native_id})
        keeping_gil.usleep(3_000_000)  # No other thread of Python runs meanwhile.
        kept_until_s = time.perf_counter()
        (moment,) = calls.take(1)

    own_call = moment.lines[threading.get_native_id()].split()
    assert moment.at_s < kept_until_s - 2.9
    assert own_call[0] in (b"35", b"230", b"101", b"115"), "nanosleep or clock_nanosleep, of two architectures"
    assert int(moment.lines[native_id].split()[1], 16) == descriptor


def test_a_thread_that_has_ended_has_no_line():
    thread = threading.Thread(target=str)
    thread.start()
    thread.join()
    eventually(lambda: not os.path.exists(f"/proc/self/task/{thread.native_id}"), "it has left the kernel")
    with closing(TimedCalls.opened(2)) as calls:
        calls.plan(time.perf_counter(), 0.0, {thread.native_id})
        with reading() as (native_id, _):
            calls.plan(time.perf_counter(), 0.0, {native_id})
            assert calls.take(2)[0].lines == {thread.native_id: b""}
        eventually(lambda: not os.path.exists(f"/proc/self/task/{native_id}"), "it has left the kernel as well")
        calls.plan(time.perf_counter(), 0.0, {thread.native_id})
        calls.plan(time.perf_counter(), 0.0, {native_id})  # Its file was opened while it ran.
        assert calls.take(2)[-1].lines == {native_id: b""}


def test_no_descriptor_is_left():
    before = descriptors()
    calls = TimedCalls.opened(4)
    for _ in range(4):
        calls.plan(time.perf_counter() + 0.05, 0.0, {threading.get_native_id()})
    calls.close()
    assert descriptors() == before


def run(script, **environment):
    """Runs a script in a process of its own. Returns: What it printed."""
    begin = "import ctypes, os, resource, threading, time\nfrom dramatiq_diag.runtime.timed_calls import TimedCalls\n"
    done = subprocess.run(
        [sys.executable, "-c", begin + script],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_forked_child_of_a_process_that_used_it_has_none():
    script = """
calls = TimedCalls.opened(2)
calls.plan(time.perf_counter(), 0.0, {threading.get_native_id()})
print(len(calls.take(1)), flush=True)
if not (pid := os.fork()):
    print(TimedCalls.opened(2), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
"""
    assert run(script) == ["1", "None"]


def test_a_forked_child_of_another_process_has_it():
    script = """
if not (pid := os.fork()):
    calls = TimedCalls.opened(2)
    calls.plan(time.perf_counter(), 0.0, {threading.get_native_id()})
    print(len(calls.take(1)), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
"""
    assert run(script) == ["1"]


@pytest.mark.parametrize("late_s", [0.0, 0.02])
def test_an_application_with_asynchronous_io_of_its_own_keeps_its_threads(late_s):
    """Also where a busy machine lets the thread that finds it out sleep for longer."""
    script = """
sleep, late_s = time.sleep, float(os.environ["LATE_S"])
time.sleep = lambda seconds: sleep(seconds + late_s)
from dramatiq_diag.runtime.timed_calls import _Request
libc = ctypes.CDLL(None)
read, write = os.pipe()
buffer = ctypes.create_string_buffer(10)
request = _Request(descriptor=read, buffer=ctypes.addressof(buffer), size=10)
request.event.notify = 1
assert libc.aio_read(ctypes.byref(request)) == 0
print(TimedCalls.opened(2))
os.write(write, b"answer")
while request.error:
    time.sleep(0.01)
print(buffer.value.decode())
"""
    assert run(script, LATE_S=str(late_s)) == ["None", "answer"]


def test_without_descriptors_there_is_none():
    script = """
before = len(os.listdir("/proc/self/fd"))
resource.setrlimit(resource.RLIMIT_NOFILE, (before + 3, before + 3))
print(TimedCalls.opened(12))
resource.setrlimit(resource.RLIMIT_NOFILE, (before + 3, before + 3))
print(len(os.listdir("/proc/self/fd")) - before)
"""
    assert run(script) == ["None", "0"]


def test_threads_are_left_out_for_which_no_descriptor_is_left():
    script = """
calls = TimedCalls.opened(2)
other = threading.Thread(target=time.sleep, args=(600,), daemon=True)
other.start()
resource.setrlimit(resource.RLIMIT_NOFILE, (0, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
calls.plan(time.perf_counter(), 0.0, {other.native_id})
(moment,) = calls.take(1)
print(list(moment.lines.values()))
"""
    assert run(script) == ["[b'']"]
