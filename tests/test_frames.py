"""Frames of all threads: they are had without a hang."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading

import pytest
from support import PATIENCE_S

from dramatiq_diag.frames import current_frames

# The collector runs as soon as so many objects are made, and each frame is one of them.
_SCRIPT = """
import gc, os, threading, time
from dramatiq_diag.frames import current_frames

class Page:
    def __del__(self):
        thread = threading.Thread(target=print, args=("finalised",))
        thread.start()
        thread.join()

for _ in range(60):
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
gc.collect()
gc.set_threshold(40)
page = Page()
page.itself = page
del page
assert len(current_frames()) == 61
gc.collect()
print("done", flush=True)
os._exit(0)
"""


def test_what_is_collected_as_garbage_meanwhile_may_start_a_thread():
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, timeout=PATIENCE_S)

    assert (done.stdout, done.stderr) == ("finalised\ndone\n", "")


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_stays_as_it_was(enabled):
    gc.enable() if enabled else gc.disable()
    try:
        assert current_frames()[threading.get_ident()].f_code.co_name == "current_frames"
        assert gc.isenabled() is enabled
    finally:
        gc.enable()
