"""The counters of a run as its entry has them: partly as the kernel's texts, which are parsed where it is read."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from dramatiq_diag.spool.reader import read_finished_run
from dramatiq_diag.store.records import RunRecord
from support.spool import END, dead_entry, start_record

LIMITED = "usage_usec 9\nnr_throttled 2\nthrottled_usec {}\n"


def run_with(spool: Path, **counted: Any) -> RunRecord:
    """Returns: The run of an entry that has this in the record of its end."""
    run_id = uuid.uuid4()
    found = read_finished_run(dead_entry(spool, [start_record(run_id), {"end": {**END["end"], **counted}}], run_id))
    assert found is not None
    return found.run


def test_the_texts_of_the_kernel_become_figures(tmp_path):
    run = run_with(
        tmp_path,
        cpu_ms=12.345678,
        gc_ms=0.1234,
        touched_bytes=4096,
        major_faults=0,
        schedstat=["9000000 1500000 7\n", "99000000 4000000 9\n"],
        cpu_stat=[LIMITED.format(1000), LIMITED.format(31_000)],
    )

    assert (run.run_queue_ms, run.throttled_ms) == (2.5, 30.0)
    assert (run.cpu_ms, run.gc_ms, run.touched_bytes, run.major_faults) == (12.346, 0.123, 4096, 0)


def test_figures_of_earlier_versions_are_read(tmp_path):
    run = run_with(tmp_path, cpu_ms=12.3, run_queue_ms=4.5, throttled_ms=6.7)

    assert (run.cpu_ms, run.run_queue_ms, run.throttled_ms) == (12.3, 4.5, 6.7)


@pytest.mark.parametrize(
    "text", ["", "1 2\n", "0 0 0\n", "a b c", "9" * 1000, f"1 {'9' * 1000} 3", "throttled_usec", "\0"]
)
def test_a_text_that_does_not_tell_is_no_figure(tmp_path, text):
    queued, limited = "9000000 1500000 7\n", LIMITED.format(1)
    for is_first in (True, False):
        schedstat, cpu_stat = ([text, good] if is_first else [good, text] for good in (queued, limited))
        run = run_with(tmp_path, cpu_ms=1.0, schedstat=schedstat, cpu_stat=cpu_stat)

        assert (run.cpu_ms, run.run_queue_ms, run.throttled_ms) == (1.0, None, None)


def test_a_clock_that_goes_back_counts_nothing(tmp_path):
    run = run_with(tmp_path, schedstat=["9 5000000 7\n", "9 1000000 9\n"])

    assert run.run_queue_ms == 0.0


def test_a_run_without_limit_was_not_throttled_as_far_as_is_known(tmp_path):
    assert run_with(tmp_path, schedstat=["1 2 3\n", "2 3 4\n"]).throttled_ms is None
