"""The numbers of the kernel's calls are those of its own headers, on both machines that are known."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dramatiq_diag.runtime.waits.system_calls import names_by_number
from support import missing

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
