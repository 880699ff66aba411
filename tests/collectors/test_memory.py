"""The memory log: what is in it, and how often."""

from __future__ import annotations

import threading
import time

import psutil

from dramatiq_diag.text import MIB
from support import PATIENCE_S, eventually
from support.collectors import rows_in_spool, rows_of, spin


def early_samples(elapsed_s: float) -> int:
    """Returns: How many samples there may be because the time since the start has doubled."""
    return sum(0.05 * 2**number <= elapsed_s for number in range(20))


def test_the_memory_log_is_what_gnuplot_plots(bench, settings, stored):
    given = settings(task_diagnostics=["memory"], memory_interval=0.05)

    with bench(given) as tasks:

        def wait() -> None:
            time.sleep(0.4)
            eventually(lambda: rows_in_spool(tasks, "memory_profile") >= 4, "there are samples")

        task_id = tasks.run(wait)

    text = stored(given).data(task_id, "memory_profile").decode("ascii")
    lines = text.splitlines()
    assert text.endswith("\n")
    assert [line for line in lines if line.startswith("#")] == [lines[0]]
    assert all(line.count("\t") == 1 for line in lines)
    assert all(len(line.split()) == 2 for line in lines[1:])
    rows = rows_of(text)
    elapsed = [row[0] for row in rows]
    # A sample at the start, every interval and at the end, at true elapsed seconds
    assert elapsed == sorted(elapsed)
    assert elapsed[0] <= elapsed[-1] - 0.4  # It was there before the function was called.
    assert elapsed[-1] >= 0.4
    assert 5 <= len(rows) <= 2 + elapsed[-1] / 0.05 + early_samples(elapsed[-1])
    rss_mb = psutil.Process().memory_info().rss / MIB
    assert all(rss_mb / 3 < row[1] < rss_mb * 3 for row in rows)


def test_the_memory_log_has_the_interval_that_was_set(bench, settings, stored):
    given = settings(task_diagnostics=["memory"])

    with bench(given) as tasks:
        task_id = tasks.run(spin, 0.02)

    # Then there are a sample at each end, and of those in between the early ones alone: the interval is two seconds
    rows = rows_of(stored(given).data(task_id, "memory_profile").decode())
    assert 2 <= len(rows) <= 2 + rows[-1][0] / 2 + early_samples(rows[-1][0])


def test_rss_rises_with_what_is_held_and_falls_with_what_is_freed(bench, settings, stored):
    given = settings(task_diagnostics=["memory"], memory_interval=0.02)
    log: list[int] = []

    def hold_and_free() -> None:
        process = psutil.Process()
        held = bytearray(200 * MIB)
        for start in range(0, len(held), 4096):
            held[start] = 1
        log.append(process.memory_info().rss)
        wait_for_sample()
        del held
        wait_for_sample()
        log.append(process.memory_info().rss)

    def wait_for_sample() -> None:
        before = rows_in_spool(tasks, "memory_profile")
        eventually(lambda: rows_in_spool(tasks, "memory_profile") > before + 1, "there is a sample")

    with bench(given) as tasks:
        task_id = tasks.run(hold_and_free)

    column = [row[1] for row in rows_of(stored(given).data(task_id, "memory_profile").decode())]
    peak, last = max(column), column[-1]
    assert peak - column[0] > 150
    assert peak - last > 150
    assert abs(peak - log[0] / MIB) < 20
    run = stored(given).runs(task_id)[0]
    assert abs(run.peak_rss_bytes / MIB - peak) < 0.01


def test_one_thread_samples_for_all_tasks(bench, settings, stored):
    given = settings(task_diagnostics=["memory"], memory_interval=0.01)
    together = threading.Barrier(4)

    def meet() -> None:
        together.wait(PATIENCE_S)
        names.append([thread.name for thread in threading.enumerate() if thread.name.startswith("dramatiq_diag")])
        together.wait(PATIENCE_S)

    names: list[list[str]] = []
    with bench(given, threads=4) as tasks:
        actor = tasks.actor(meet)
        for _ in range(4):
            actor.send()
        tasks.finish()

    threads = ("contact", "publisher", "saver", "ticker")
    assert sorted(names[0]) == [f"dramatiq_diag.{name}" for name in threads]
