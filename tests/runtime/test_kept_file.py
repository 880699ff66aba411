"""Tests how small files of the kernel are read."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from dramatiq_diag.runtime.kept_file import KeptFile

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the calls are Linux's")


def opened(path: Path, max_bytes: int = 100) -> KeptFile:
    file = KeptFile.opened(path, max_bytes)
    assert file is not None
    return file


def test_a_text_that_has_become_shorter_has_nothing_of_the_longer_one(tmp_path: Path) -> None:
    path = tmp_path / "stat"
    path.write_bytes(b"123456789 987654321")
    file = opened(path)
    assert file.read() == b"123456789 987654321"
    path.write_bytes(b"12")
    assert file.read() == b"12"
    path.write_bytes(b"")
    assert file.read() == b""


def test_no_more_than_the_most_bytes_are_read_always_from_the_start(tmp_path: Path) -> None:
    path = tmp_path / "stat"
    path.write_bytes(b"abcdefgh\0ijk")
    file = opened(path, 10)
    assert [file.read(), file.read()] == [b"abcdefgh\0i", b"abcdefgh\0i"]


def test_a_file_that_cannot_be_read_is_empty(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "written", os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, b"text")
    assert KeptFile(descriptor, 100).read() == b""


def test_a_file_that_is_not_there_is_none(tmp_path: Path) -> None:
    assert KeptFile.opened(tmp_path / "none", 100) is None
