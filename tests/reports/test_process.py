"""The process that renders reads what may be damaged on purpose: it is given little, and ends with a clear answer."""

from __future__ import annotations

import io
import random
import resource
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dramatiq_diag.reports.errors import ReportError
from dramatiq_diag.reports.process import REFUSED, TIMEOUT_S, RenderProcess
from dramatiq_diag.runtime.interpreter import python_command

LOG = b"0.000\t10.000\n2.000\t20.000\n"
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the limits are those of Linux")


def rendered(
    data: bytes, stored_format: str = "memory.datum", name: str = "csv", timeout_s: float = TIMEOUT_S
) -> bytes:
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as target:
        source.write(data)
        source.seek(0)
        RenderProcess(timeout_s).render(source, target, stored_format, name)
        target.seek(0)
        return target.read()


@pytest.fixture
def interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a script before the interpreter that renders."""

    def put(line: str) -> None:
        script = tmp_path / "python"
        script.write_text(f'#!/bin/sh\n{line}\nexec {sys.executable} "$@"\n')
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(sys, "executable", str(script))

    return put


def test_it_is_given_a_few_variables_and_a_directory_of_its_own(
    interpreter: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DRAMATIQ_DIAG_API_TOKEN", "t" * 16)
    monkeypatch.setenv("DRAMATIQ_DIAG_DATABASE_URL", "postgresql://u:secret@h/d")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("TZ", "UTC")
    seen = tmp_path / "seen"
    interpreter(f"env > {seen}; pwd >> {seen}; ls -lad . >> {seen}")

    assert rendered(LOG).startswith(b"seconds,rss_bytes")

    *variables, directory, listed = seen.read_text().splitlines()
    given = dict(variable.split("=", 1) for variable in variables)
    passed_on = {"LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONHOME", "PYTHONPATH", "TZ"}
    assert set(given) <= {*passed_on, "HOME", "TMPDIR", "PWD", "OLDPWD", "SHLVL", "_"}  # Some are the shell's own.
    assert given["TZ"] == "UTC"
    assert given["HOME"] == given["TMPDIR"] == directory
    assert listed.startswith("drwx------")
    assert Path(directory).parent == Path(tempfile.gettempdir())
    assert not Path(directory).exists()


@on_linux
def test_it_has_limits_and_gets_no_new_privileges() -> None:
    code = (
        "import resource, sys; from dramatiq_diag.reports.__main__ import _limit; _limit(2**30)\n"
        "for name in ('DATA', 'CPU', 'FSIZE', 'NOFILE', 'CORE'):\n"
        "    print(*resource.getrlimit(getattr(resource, f'RLIMIT_{name}')))\n"
        "print([line for line in open('/proc/self/status') if line.startswith('NoNewPrivs')][0].split()[1])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()

    highest = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = 256 if highest == resource.RLIM_INFINITY else min(256, highest)
    expected = [2**30, 1200, 2**30, files, 0]
    assert said == [*(f"{value} {value}" for value in expected), "1"]


@on_linux
def test_a_report_beyond_the_limit_of_a_file_is_a_clear_error(tmp_path: Path) -> None:
    code = (
        "import sys, dramatiq_diag.reports.__main__ as process; process._MAX_FILE_BYTES = 2**20\n"
        "sys.exit(process.main('memory.datum', 'csv', str(2**31)))"
    )
    log = b"".join(b"%d.000\t10.000\n" % second for second in range(100_000))
    with (tmp_path / "target").open("wb") as target:
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, input=log, stdout=target, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (REFUSED, b"The report would have more than 1 MiB.")


@pytest.mark.parametrize("name", ["SEGV", "ABRT", "BUS", "FPE", "ILL"])
def test_a_crash_is_said_to_be_one(interpreter: Callable[[str], None], name: str) -> None:
    interpreter(f"kill -{name} $$")
    with pytest.raises(ReportError, match=rf"crashed \(SIG{name}\), so the stored artifact is probably damaged"):
        rendered(LOG)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("kill -XCPU $$", "too much CPU time"),
        ("kill -KILL $$", "within 2048 MiB of memory.*exit status -9"),
        ("echo MemoryError >&2; exit 1", r"within 2048 MiB of memory.*\(MemoryError\)"),
        ("echo std::bad_alloc >&2; kill -ABRT $$", r"within 2048 MiB of memory.*bad_alloc"),
    ],
)
def test_a_limit_is_named(interpreter: Callable[[str], None], line: str, said: str) -> None:
    interpreter(line)
    with pytest.raises(ReportError, match=said):
        rendered(LOG)


def test_one_that_hangs_is_given_up(interpreter: Callable[[str], None]) -> None:
    interpreter("exec sleep 1000")
    with pytest.raises(ReportError, match=r"given up after 0\.2 s"):
        rendered(LOG, timeout_s=0.2)


@pytest.fixture(scope="module")
def allocation_profile(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    memray = pytest.importorskip("memray")
    path = tmp_path_factory.mktemp("allocations") / "memray.bin"
    with memray.Tracker(path):
        kept = [bytearray(1000) for _ in range(2000)]
    assert kept
    return path.read_bytes()


@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_allocation_profile_is_a_report_or_a_clear_error(allocation_profile: bytes, seed: int) -> None:
    chance = random.Random(seed)
    damaged = bytearray(allocation_profile)
    for _ in range(2 ** (seed % 4 * 2)):
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
    if seed >= 4:
        del damaged[chance.randrange(len(damaged)) :]
    try:
        report: Any = rendered(bytes(damaged), "memray.bin", "calltree")
    except ReportError as error:
        report = str(error)
        assert len(report) < 1000
    assert report


def test_a_child_finds_the_packages_of_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under uWSGI, whose interpreter may be one without them."""
    (tmp_path / "only_here.py").write_text("import sys\ndef say(word): print(word); return 7\n")
    monkeypatch.syspath_prepend(tmp_path)
    done = subprocess.run(python_command("only_here:say", "word"), stdout=subprocess.PIPE, check=False, cwd="/")
    assert (done.returncode, done.stdout) == (7, b"word\n")


def test_what_is_in_the_way_of_the_standard_library_is_not_imported_by_a_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "csv.py").write_text("raise SystemExit('the wrong one')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert io.BytesIO(rendered(LOG)).readline() == b"seconds,rss_bytes\n"
