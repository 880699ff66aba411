"""The scan of a directory: names of a pattern with their status, and nothing that a link or a race could add."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest

from dramatiq_diag.runtime.directory_scan import scan

PATTERN = re.compile(r"(?P<number>[0-9]+)\.txt")


def test_names_that_match_as_a_whole_come_with_their_status(tmp_path: Path) -> None:
    for name in ("1.txt", "22.txt", "1.txt.tmp", "a.txt", "3.txt\n"):
        (tmp_path / name).write_text("x" * len(name))

    found = {match["number"]: status.st_size for match, status in scan(tmp_path, PATTERN)}

    assert found == {"1": 5, "22": 6}


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "1.txt").symlink_to(tmp_path / "secret")
    (tmp_path / "2.txt").symlink_to(tmp_path / "nothing")

    assert [stat.S_ISLNK(status.st_mode) for _, status in scan(tmp_path, PATTERN)] == [True, True]


def test_a_file_that_vanishes_is_left_out(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / f"{number}.txt").touch()
    found = scan(tmp_path, PATTERN)

    first, _ = next(found)
    for path in tmp_path.iterdir():
        if path.name != first[0]:
            path.unlink()

    assert list(found) == []


def test_a_directory_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        next(scan(tmp_path / "nothing", PATTERN))
