"""Starts and ends memray's recordings beside threads that allocate without the GIL, and threads that begin and end.

    python -m torture.trackers [--seconds 300] [--bare]

No file may be damaged. With `--bare` the Trackers are started as memray does it by itself; memray 1.20 then ends the
process by a signal.
"""

from __future__ import annotations

import argparse
import faulthandler
import sqlite3
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

import memray

from dramatiq_diag.collectors.memray import first_function
from dramatiq_diag.runtime.interrupts import NotedCall

#: Threads that use SQLite, which allocates without the GIL, and threads that begin and end other threads.
_SQLITE_THREADS = 3
_PARENT_THREADS = 1

#: Threads that one thread begins at a time.
_CHILDREN = 3

#: Seconds that each Tracker records.
_RECORDED_S = 0.002


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m torture.trackers", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=300.0, help="how long (default: 300)")
    parser.add_argument("--bare", action="store_true", help="as memray starts a Tracker by itself")
    arguments = parser.parse_args()
    faulthandler.enable()
    ended = threading.Event()
    functions = [_use_sqlite] * _SQLITE_THREADS + [_begin_threads] * _PARENT_THREADS
    threads = [threading.Thread(target=function, args=(ended,)) for function in functions]
    for thread in threads:
        thread.start()
    try:
        count, records = _start_and_end(time.monotonic() + arguments.seconds, bare=arguments.bare)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    print(f"{count} recordings, {records} allocations read back, no file damaged")  # noqa: T201


def _start_and_end(until: float, *, bare: bool) -> tuple[int, int]:
    """Returns: The number of recordings, and that of the allocations in them."""
    function = first_function()
    count = records = 0
    with tempfile.TemporaryDirectory(prefix="dramatiq_diag_torture_") as directory:
        while time.monotonic() < until:
            path = Path(directory, f"{count}.bin")
            tracker = memray.Tracker(destination=memray.FileDestination(path, compress_on_exit=False))
            following = () if bare else (function.setting(),)
            NotedCall(tracker.__enter__, *following).make()
            time.sleep(_RECORDED_S)
            NotedCall(partial(tracker.__exit__, None, None, None)).make()
            with memray.FileReader(path) as reader:
                records += sum(1 for _ in reader.get_allocation_records())
            path.unlink()
            count += 1
    return count, records


def _use_sqlite(ended: threading.Event) -> None:
    while not ended.is_set():
        connection = sqlite3.connect(":memory:")
        connection.execute("CREATE TABLE numbers (number)")
        connection.executemany("INSERT INTO numbers VALUES (?)", [(number,) for number in range(200)])
        assert len(connection.execute("SELECT * FROM numbers").fetchall()) == 200
        connection.close()


def _begin_threads(ended: threading.Event) -> None:
    while not ended.is_set():
        children = [threading.Thread(target=bytearray, args=(1000,)) for _ in range(_CHILDREN)]
        for child in children:
            child.start()
        for child in children:
            child.join()


if __name__ == "__main__":
    main()
