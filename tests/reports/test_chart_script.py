"""The script that draws charts is made once, and kept in a directory."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from dramatiq_diag.errors import NotInstalledError
from dramatiq_diag.reports.charts.script import charts_script

pytest.importorskip("vl_convert")


@pytest.fixture
def interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replaces the interpreter of child processes. Returns: The file with a line for each of its starts."""
    starts = tmp_path / "starts"
    starts.touch()
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\necho started >> {starts}\nprintf 'the script'\n")
    script.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(script))
    return starts


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data"


def kept(directory: Path) -> list[Path]:
    return [*directory.iterdir()]


def test_it_is_made_once(interpreter: Path, directory: Path) -> None:
    assert [charts_script(directory) for _ in range(3)] == [b"the script"] * 3

    assert interpreter.read_text() == "started\n"
    [file] = kept(directory)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_that_of_another_version_is_replaced(interpreter: Path, directory: Path) -> None:
    charts_script(directory)
    [file] = kept(directory)
    file.rename(file.with_name("charts-0.0.1.js"))

    assert charts_script(directory) == b"the script"
    assert kept(directory) == [file]


def test_one_that_others_could_have_written_is_not_served(interpreter: Path, directory: Path) -> None:
    charts_script(directory)
    [file] = kept(directory)
    file.write_bytes(b"pwned()")
    file.chmod(0o666)

    assert charts_script(directory) == b"the script"
    assert file.read_bytes() == b"the script"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_an_empty_one_is_made_again(interpreter: Path, directory: Path) -> None:
    charts_script(directory)
    [file] = kept(directory)
    file.write_bytes(b"")

    assert charts_script(directory) == b"the script"


def test_where_it_cannot_be_kept_it_is_made_each_time(
    interpreter: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    not_a_directory = tmp_path / "file"
    not_a_directory.touch()

    assert [charts_script(not_a_directory) for _ in range(2)] == [b"the script"] * 2
    assert "is not kept" in caplog.text
    assert interpreter.read_text() == "started\n" * 2


def test_a_failure_names_the_package(tmp_path: Path, directory: Path, interpreter: Path) -> None:
    Path(sys.executable).write_text("#!/bin/sh\necho 'No module named vl_convert' >&2\nexit 1\n")

    with pytest.raises(NotInstalledError, match=r"No module named vl_convert.*pip install"):
        charts_script(directory)
    assert not directory.exists()
