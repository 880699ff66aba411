"""What threads of this process have touched, read from another thread."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from dramatiq_diag.runtime.thread_faults import ThreadFaults
from dramatiq_diag.text import MIB


@pytest.mark.skipif(sys.platform != "linux", reason="The counts are those of /proc.")
def test_memory_is_charged_to_the_thread_that_touched_it_first():
    faults = ThreadFaults()
    filled, done = threading.Event(), threading.Event()
    held: list[bytes] = []

    def fill() -> None:
        held.append(b"x" * (64 * MIB))
        filled.set()
        done.wait()

    before = {"own": faults.thread_bytes(threading.get_native_id()), "all": faults.process_bytes()}
    thread = threading.Thread(target=fill)
    thread.start()
    filled.wait()
    touched = faults.thread_bytes(thread.native_id)
    own = faults.thread_bytes(threading.get_native_id()) - before["own"]
    together = faults.process_bytes() - before["all"]
    done.set()
    thread.join()

    assert 64 * MIB <= touched <= 70 * MIB
    assert own < 6 * MIB
    assert together >= touched


def test_a_thread_that_is_not_there_has_touched_nothing_known(tmp_path: Path):
    assert ThreadFaults().thread_bytes(2**30) is None
    assert ThreadFaults(tmp_path).process_bytes() is None
