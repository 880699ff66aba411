"""What a running run has written so far: a thinned curve, a thinned table, and the end of the log."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from dramatiq_diag.collectors.resources import HEADER
from dramatiq_diag.spool.entry import Entry
from dramatiq_diag.worker.run_texts import MAX_LOG_BYTES, MAX_POINTS, MAX_ROWS, RunTexts


@pytest.fixture
def entry(tmp_path: Path) -> Iterator[Entry]:
    entry = Entry(tmp_path, uuid.uuid4())
    entry.create()
    entry.flush()
    yield entry
    entry.close()


def test_what_is_not_collected_is_none(entry: Entry) -> None:
    texts = RunTexts(entry)
    texts.read()
    assert (texts.memory, texts.resources, texts.log) == (None, None, None)


def test_a_long_curve_is_thinned_and_keeps_its_peak_and_its_end(entry: Entry) -> None:
    texts = RunTexts(entry)
    for second in range(5000):
        entry.append({"to": "memory_profile", "text": f"{second}.000\t{900 if second == 777 else 10}.000\n"})
        if second % 500 == 0:
            texts.read()
    texts.read()
    assert texts.memory is not None
    curve = texts.memory["curve"]
    assert len(curve) <= MAX_POINTS
    assert (curve[0][0], curve[-1][0]) == (0.0, 4999.0)
    assert [777.0, 900 * 1024**2] in curve
    assert curve == sorted(curve)


def test_a_long_table_is_thinned_and_keeps_its_end(entry: Entry) -> None:
    entry.append({"to": "resources_profile", "text": HEADER})
    texts = RunTexts(entry)
    for second in range(3000):
        entry.append({"to": "resources_profile", "text": f"{second}.000,1.0,2.0,3,4,,6,7,nan\n"})
    texts.read()
    assert texts.resources is not None
    assert texts.resources["columns"] == HEADER.strip().split(",")
    rows = texts.resources["rows"]
    assert len(rows) <= MAX_ROWS
    assert rows[-1] == [2999.0, 1.0, 2.0, 3.0, 4.0, None, 6.0, 7.0, None]


def test_the_log_is_its_end_from_the_beginning_of_a_line(entry: Entry) -> None:
    texts = RunTexts(entry)
    entry.append({"to": "task_logs", "text": ""})
    texts.read()
    assert texts.log == {"text": "", "is_cut": False}
    for number in range(2000):
        entry.append({"to": "task_logs", "text": f"line {number} \u20ac\n"})
    texts.read()
    assert texts.log is not None
    assert texts.log["is_cut"] is True
    assert texts.log["text"].startswith("line ")
    assert texts.log["text"].endswith("line 1999 \u20ac\n")
    assert len(texts.log["text"].encode()) <= MAX_LOG_BYTES
