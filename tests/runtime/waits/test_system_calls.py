"""The numbers of the kernel's calls are those of its own headers; a thread may end while its call is read."""

from __future__ import annotations

import os
import re
import sys
import threading
from pathlib import Path

import pytest

from dramatiq_diag.runtime.waits.kernel_files import KernelFiles
from dramatiq_diag.runtime.waits.system_calls import SystemCallReader, names_by_number
from support import eventually, missing

_INCLUDE = Path("/usr/include")
#: Machine -> where Debian puts its numbers. aarch64 has the generic ones, which are there on every machine.
HEADERS = {
    "x86_64": _INCLUDE / "x86_64-linux-gnu/asm/unistd_64.h",
    "aarch64": _INCLUDE / "asm-generic/unistd.h",
}
#: `fstatat` and others have a number of 32 bits and one of 64 bits by the same name.
_DEFINED = re.compile(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)$", re.MULTILINE)
#: The name of the table -> another one in the generic header.
_GENERIC = {"newfstatat": "fstatat"}


def numbers_in(header: Path) -> dict[str, int]:
    if not header.is_file():
        missing(f"{header} is not there", "On Debian: apt-get install linux-libc-dev")
    return {name: int(number) for name, number in _DEFINED.findall(header.read_text("ascii"))}


@pytest.mark.parametrize("machine", HEADERS)
def test_each_call_has_the_number_that_the_kernel_gives_it(machine: str) -> None:
    numbers = numbers_in(HEADERS[machine])
    names = names_by_number(machine)

    known = {name: numbers.get(name, numbers.get(_GENERIC.get(name, name))) for name in names.values()}

    assert len(names) > 50
    assert {name: number for number, name in names.items()} == known


def test_aarch64_has_all_calls_but_the_old_ones() -> None:
    x86_64, aarch64 = (set(names_by_number(machine).values()) for machine in HEADERS)

    assert x86_64 - aarch64 == {"epoll_wait", "open", "pause", "poll", "select", "vfork"}
    assert aarch64 <= x86_64


class OpenedBefore(KernelFiles):
    """Reads the files of a thread that were opened before it ended."""

    def __init__(self, native_id: int) -> None:
        super().__init__(Path("/"), keeps_gil=True)
        directory = f"proc/self/task/{native_id}"
        names = (f"{directory}/{name}" for name in ("syscall", "stat", "wchan"))
        self.opened = {name: os.open(f"/{name}", os.O_RDONLY) for name in names}

    def read(self, name: str, max_bytes: int = 1000) -> bytes:
        if name not in self.opened:
            return super().read(name, max_bytes)
        try:
            return os.pread(self.opened[name], max_bytes, 0)
        except OSError as error:
            self.error = error.errno or 0
            return b""

    def close(self) -> None:
        for descriptor in self.opened.values():
            os.close(descriptor)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has these files")
def test_of_a_thread_that_ends_while_it_is_looked_at_nothing_is_missing() -> None:
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait)
    thread.start()
    native_id = thread.native_id
    assert native_id is not None
    files = OpenedBefore(native_id)
    reader = SystemCallReader(files)
    assert reader.read([native_id]).keys() == {native_id}

    ended.set()
    thread.join()
    eventually(lambda: not os.path.exists(f"/proc/self/task/{native_id}"), "it has left the kernel")

    assert reader.read([native_id]) == {}
    assert reader.missing is None
    files.close()
