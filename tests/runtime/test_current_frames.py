"""Frames are read beside other interpreters of the process, which may run Python code meanwhile."""

from __future__ import annotations

import subprocess
import sys

from support import PATIENCE_S

# Each interpreter begins with imports, so there are frames that a look could see. A look that makes objects for those
# ends the process.
_SCRIPT = """
import sys, threading, time
from dramatiq_diag.runtime.frames import Look, thread_ids
if sys.version_info >= (3, 13):
    from _interpreters import create, destroy, exec as run
else:
    from _xxsubinterpreters import create, destroy, run_string as run

def execute():
    for _ in range(10):
        interpreter = create()
        run(interpreter, "import json\\nfor _ in range(50): json.dumps(list(range(300)))")
        destroy(interpreter)

def look(thread_id):
    look = Look()
    places = look.thread(thread_id)
    look.take()
    return [code.co_name for code, _ in places]

def observe():
    while executing.is_alive():
        ids = thread_ids()
        assert main in ids and threading.get_ident() in ids, ids
        assert look(main)[-1] == "<module>"
        time.sleep(0)  # On Python 3.11 a thread of another interpreter cannot ask for the GIL.

main = threading.get_ident()
executing, observing = threading.Thread(target=execute), threading.Thread(target=observe)
executing.start()
kept = create()
held = sys.getrefcount(sys._getframe())
assert [look(main)[-1] for _ in range(100)] == ["<module>"] * 100
assert sys.getrefcount(sys._getframe()) == held
observing.start()
executing.join()
observing.join()
destroy(kept)
print("done")
"""


def test_threads_are_read_while_other_interpreters_run():
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, timeout=PATIENCE_S)

    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)
