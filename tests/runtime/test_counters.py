"""The counters of the thread that reads them."""

from __future__ import annotations

import mmap
import os
import resource
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dramatiq_diag.runtime.counters import CounterReader, Counters
from dramatiq_diag.runtime.cpu_limit import throttled_s
from dramatiq_diag.runtime.kept_file import KeptFile
from support import PATIENCE_S, eventually
from support.clocks import burn

TOUCHED_PAGES = 2000


def read(reader: CounterReader) -> Counters:
    """Returns: The counters of the calling thread."""
    return Counters(*reader.own().read())


def on_a_thread(work: Callable[[], Any]) -> Any:
    """Returns: What the function returned on a thread of its own, which has ended."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join(PATIENCE_S)
    return found[0]


def touch() -> None:
    with mmap.mmap(-1, TOUCHED_PAGES * mmap.PAGESIZE) as memory:
        for start in range(0, len(memory), mmap.PAGESIZE):
            memory[start] = 1


def open_descriptors() -> set[str]:
    return {os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink() and exists(path)}


def exists(path: Path) -> bool:
    try:
        os.readlink(path)
    except OSError:
        return False
    return True


def test_they_are_those_of_the_thread_that_reads_them():
    reader = CounterReader()

    def work() -> tuple[Counters, Counters]:
        before = read(reader)
        touch()
        burn(0.05)
        return before, read(reader)

    own_before = read(reader)
    before, after = on_a_thread(work)
    own_after = read(reader)

    assert after.cpu_s - before.cpu_s >= 0.05
    assert own_after.cpu_s - own_before.cpu_s < after.cpu_s - before.cpu_s
    assert after.touched_bytes - before.touched_bytes >= TOUCHED_PAGES * mmap.PAGESIZE
    assert own_after.touched_bytes - own_before.touched_bytes < TOUCHED_PAGES * mmap.PAGESIZE
    assert after.run_queue_s >= before.run_queue_s >= 0
    assert after.usage.ru_majflt >= before.usage.ru_majflt


def test_the_run_queue_is_the_kernels_number():
    def work() -> tuple[float, float | None, float]:
        path = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
        before = int(path.read_text().split()[1]) / 1e9
        found = read(CounterReader()).run_queue_s
        return before, found, int(path.read_text().split()[1]) / 1e9

    before, found, after = on_a_thread(work)
    assert before <= found <= after


def test_the_files_of_a_thread_are_closed_with_it(tmp_path):
    stat = tmp_path / "sys/fs/cgroup/cpu.stat"
    thread_ids: list[int] = []

    def work() -> set[str]:
        thread_ids.append(threading.get_native_id())
        for name, text in {
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/cpu.max": "50000 100000\n",
            "sys/fs/cgroup/cpu.stat": "throttled_usec 1500000\n",
            f"proc/self/task/{threading.get_native_id()}/schedstat": "1 2000000000 3\n",
        }.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        reader = readers[0] = CounterReader(tmp_path)
        counters = read(reader)
        assert (counters.run_queue_s, throttled_s(counters.cpu_stat.decode())) == (2.0, 1.5)

        # When the numbers change
        stat.write_text("throttled_usec 2500000\n")
        assert throttled_s(read(reader).cpu_stat.decode()) == 2.5
        return open_descriptors()

    readers: list[Any] = [None]
    before, inside = open_descriptors(), on_a_thread(work)

    schedstat = tmp_path / f"proc/self/task/{thread_ids[0]}/schedstat"
    assert inside - before >= {str(stat), str(schedstat)}
    # The thread's locals go a moment after it can be joined
    eventually(lambda: not open_descriptors() & {str(stat), str(schedstat)}, "the files are closed")
    assert read(readers[0]).run_queue_s is None  # This thread has no such file.


def test_without_proc_there_is_the_cpu_time(tmp_path):
    counters = read(CounterReader(tmp_path))

    assert counters.cpu_s > 0
    assert (counters.run_queue_s, counters.cpu_stat, counters.gc_s) == (None, b"", 0.0)


@pytest.mark.parametrize("text", ["", "1", "1 2\n", "one two three", "a b c\n", "\0", "0 0 0\n", "9" * 99])
def test_strange_numbers_of_the_kernel_are_unknown(tmp_path, text):
    """A kernel that does not count for how long threads wait for a processor writes `0 0 0`."""
    for name, content in {
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/cpu.max": "50000 100000\n",
        "sys/fs/cgroup/cpu.stat": f"throttled_usec {text[:1]}x",
        f"proc/self/task/{threading.get_native_id()}/schedstat": text,
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)

    counters = read(CounterReader(tmp_path))
    assert (counters.run_queue_s, throttled_s(counters.cpu_stat.decode())) == (None, None)


def test_with_all_descriptors_used_up_the_rest_is_read() -> None:
    reader = CounterReader()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        counters = on_a_thread(lambda: read(reader))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    assert counters.run_queue_s is None
    assert counters.cpu_stat == b""
    assert counters.cpu_s >= 0
    assert (counters.touched_bytes is None) is not hasattr(resource, "RUSAGE_THREAD")


def test_a_descriptor_that_the_application_closed_does_no_harm(tmp_path, capfd):
    path = tmp_path / "file"
    path.write_text("text")
    file = KeptFile.opened(path, 100)
    assert file.read() == b"text"
    for link in Path("/proc/self/fd").iterdir():
        if exists(link) and os.readlink(link) == str(path):
            os.close(int(link.name))

    assert file.read() == b""
    del file
    assert "Exception ignored" not in capfd.readouterr().err


def test_a_number_that_the_application_has_used_again_stays_open(tmp_path):
    """Daemons close every descriptor, and the next file gets a number of ours."""
    path, own = tmp_path / "file", tmp_path / "own"
    path.write_text("text")
    file = KeptFile.opened(path, 100)
    (number,) = (int(link.name) for link in Path("/proc/self/fd").iterdir() if exists(link) and link.readlink() == path)
    os.close(number)
    with own.open("w") as opened:
        assert opened.fileno() == number
        del file
        assert os.path.samestat(os.fstat(number), own.stat())
