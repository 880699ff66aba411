"""`python without_resources.py COMMAND ...` executes a command that is killed if it sets a priority or the like.

It is what systemd does to a service with `SystemCallFilter=~@resources`.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

#: setpriority, sched_setparam, sched_setscheduler, sched_setaffinity, ioprio_set, sched_setattr; and the kernel's name
#: for the machine, as the numbers of another one mean other calls.
_FORBIDDEN = {
    "x86_64": ((141, 142, 144, 203, 251, 314), 0xC000003E),
    "aarch64": ((140, 118, 119, 122, 30, 274), 0xC00000B7),
}

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2
_LOAD_WORD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_KILL_PROCESS, _ALLOW = 0x80000000, 0x7FFF0000

#: Fails a call with EPERM.
REFUSE = 0x00050001


class _Filter(ctypes.Structure):
    _fields_ = [("count", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def _program(numbers: tuple[int, ...], machine: int, action: int) -> list[tuple[int, int, int, int]]:
    """Returns: The filter's instructions: code, steps to skip if so, steps to skip if not, operand."""
    program = [(_LOAD_WORD, 0, 0, 4), (_JUMP_IF_EQUAL, 0, len(numbers) + 1, machine), (_LOAD_WORD, 0, 0, 0)]
    for left, number in zip(range(len(numbers), 0, -1), numbers, strict=True):
        program.append((_JUMP_IF_EQUAL, left, 0, number))
    return [*program, (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, action)]


def forbid(calls: dict[str, tuple[tuple[int, ...], int]], action: int) -> None:
    """Installs the filter; it is inherited and cannot be taken away. Raises: OSError.

    Parameters:
      calls: Machine -> the numbers of the calls, and the kernel's name for the machine.
      action: What happens at such a call.
    """
    program = _program(*calls[platform.machine()], action)
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        _PR_SET_SECCOMP, _FILTER, ctypes.byref(_Filter(len(program), code)), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "The filter could not be installed.")


if __name__ == "__main__":
    forbid(_FORBIDDEN, _KILL_PROCESS)
    os.execv(sys.argv[1], sys.argv[1:])
