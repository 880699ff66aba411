"""A person downloads the artifacts and opens each with the program it is meant for."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import PATIENCE_S, missing

GNUPLOT = """
set terminal svg
set output "memory.svg"
set ylabel "Task Process Megabytes (MB)"
set xlabel "Seconds since task start"
plot "memory.datum" with lines
"""


@pytest.fixture(scope="session")
def downloaded(made_once: Callable[..., Path]) -> Path:
    """The three artifacts of the demo's growing cache, as `dramatiq-diag artifacts --download` leaves them."""
    return made_once("opening", download) / "files"


def download(directory: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if "DIAG" not in name}
    environment["DRAMATIQ_DIAG_DATA_DIR"] = str(directory / "data")

    def command(*arguments: str) -> str:
        script = [sys.executable, "-c", "from dramatiq_diag.cli import main; main()", *arguments]
        return subprocess.run(script, env=environment, capture_output=True, text=True, check=True).stdout

    runs = json.loads(command("demo", "--exit"))["runs"]
    task_id = next(run["task_id"] for run in runs if run["actor_name"] == "fill_cache")
    command("artifacts", task_id, "--download", str(directory / "files"))


def test_gnuplot_draws_the_memory_log_with_the_three_lines_of_its_description(downloaded: Path) -> None:
    if shutil.which("gnuplot") is None:
        missing("gnuplot is not installed", "On Debian: apt-get install gnuplot-nox")

    done = subprocess.run(["gnuplot"], input=GNUPLOT, cwd=downloaded, capture_output=True, text=True, check=True)

    drawing = (downloaded / "memory.svg").read_text()
    assert done.stderr == ""
    assert "Task Process Megabytes (MB)" in drawing
    assert "Seconds since task start" in drawing
    samples = len((downloaded / "memory.datum").read_text().splitlines()) - 1
    assert samples >= 2
    points = [path.count(",") for path in re.findall(r"<path[^>]*?\sd='([^']*)'", drawing)]
    assert samples / 2 < max(points) - 2 <= samples  # Two are those of the key, and equal neighbours are one.


def test_a_browser_shows_the_tree_with_the_function_of_the_actor(
    downloaded: Path, dump_dom: Callable[[str], str]
) -> None:
    page = dump_dom((downloaded / "pyinstrument.html").as_uri())

    assert "fill_cache" in page.partition('<div id="app">')[2]


@pytest.mark.parametrize("report", ["stats", "flamegraph", "table"])
def test_memray_s_reports_name_the_line_that_allocated(downloaded: Path, tmp_path: Path, report: str) -> None:
    shutil.copy(downloaded / "memray.bin", tmp_path)
    outcome = _memray(report, tmp_path)

    text = outcome if report == "stats" else next(tmp_path.glob(f"memray-{report}-*.html")).read_text()

    assert "work.py" in text


def _memray(report: str, directory: Path) -> str:
    command = [sys.executable, "-m", "memray", report, "memray.bin"]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=True).stdout


def test_memray_s_tree_shows_the_function_of_the_actor_in_a_terminal(downloaded: Path) -> None:
    process, terminal = pty.fork()
    if process == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS="200", LINES="60")
        os.execv(sys.executable, [sys.executable, "-m", "memray", "tree", str(downloaded / "memray.bin")])
    try:
        screen = _read_until(terminal, "fill_cache")
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(terminal)

    assert "fill_cache" in screen


def _read_until(terminal: int, wanted: str) -> str:
    """Returns: What the program wrote, up to and with what is wanted, or all that it wrote while patience lasted."""
    screen = ""
    gives_up_at = time.monotonic() + PATIENCE_S
    while wanted not in screen and time.monotonic() < gives_up_at:
        readable: Any = select.select([terminal], [], [], 0.5)[0]
        if readable:
            screen += os.read(terminal, 1 << 16).decode("utf-8", "replace")
    return screen
