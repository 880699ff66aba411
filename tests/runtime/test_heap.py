"""The live memory of a process: exact for small and for large objects, and unknown where it is not."""

from __future__ import annotations

import ctypes
import gc
import sys
import time
import tracemalloc
from collections.abc import Iterator

import pytest

from dramatiq_diag.runtime.heap import Heap, HeapReader
from support import missing


@pytest.fixture(autouse=True)
def nobody_else_allocates() -> Iterator[None]:
    """Keeps the GIL in this thread, but where it waits: others, as xdist's, would free memory between two looks."""
    interval_s = sys.getswitchinterval()
    gc.collect()
    gc.disable()
    sys.setswitchinterval(1000)
    time.sleep(0.05)  # A thread that waits for the GIL already does so with the old interval.
    yield
    sys.setswitchinterval(interval_s)
    gc.enable()


@pytest.fixture
def reader() -> HeapReader:
    made = HeapReader()
    if made.read() is None:
        missing("The live memory is not known here", "glibc 2.33 and CPython's own allocator")
    return made


def read(reader: HeapReader) -> Heap:
    heap = reader.read()
    assert heap is not None
    return heap


def test_small_objects_are_counted_by_their_bytes(reader: HeapReader) -> None:
    before = read(reader)
    kept = [object() for _ in range(100_000)]
    after = read(reader)
    assert 1_600_000 <= after.small_bytes - before.small_bytes < 1_700_000
    del kept
    assert abs(read(reader).small_bytes - before.small_bytes) < 100_000


def test_large_objects_are_in_the_heap_of_the_c_library(reader: HeapReader) -> None:
    before = read(reader)
    kept = [bytes(1000) for _ in range(1000)]
    mapped = bytearray(50_000_000)
    after = read(reader)
    assert 51_000_000 < after.in_use_bytes - before.in_use_bytes < 52_000_000
    assert after.live_bytes == after.small_bytes + after.in_use_bytes
    del kept, mapped


def test_what_c_code_keeps_is_counted(reader: HeapReader) -> None:
    library = ctypes.PyDLL(None)  # It keeps the GIL.
    library.malloc.restype = ctypes.c_void_p
    library.free.argtypes = [ctypes.c_void_p]
    before = read(reader)
    block = library.malloc(10_000_000)
    try:
        assert read(reader).in_use_bytes - before.in_use_bytes >= 10_000_000
    finally:
        library.free(block)


def test_under_another_allocator_of_python_nothing_is_known(reader: HeapReader) -> None:
    tracemalloc.start()
    try:
        assert reader.read() is None
    finally:
        tracemalloc.stop()
    assert reader.read() is not None
