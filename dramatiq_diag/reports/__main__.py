"""The process that renders a report; `process.py` starts it with the artifact as stdin and the report as stdout."""

from __future__ import annotations

import ctypes
import errno
import os
import sys

from ..errors import NotInstalledError
from .errors import ReportError
from .formats import FORMATS
from .process import NOT_INSTALLED, REFUSED, TIMEOUT_S

#: The limit of CPU time, of all its threads together, in seconds.
_MAX_CPU_S = int(4 * TIMEOUT_S)

#: The largest file that it may write, in bytes, and the most files that it may have open.
_MAX_FILE_BYTES = 1024**3
_MAX_FILES = 256

_PR_SET_NO_NEW_PRIVS = 38


def main(stored_format: str, format_name: str, max_memory_bytes: str) -> int:
    """Returns: The exit status."""
    _limit(int(max_memory_bytes))
    try:
        _render(stored_format, format_name)
    except NotInstalledError as error:
        sys.stderr.write(str(error))
        return NOT_INSTALLED
    except ReportError as error:
        sys.stderr.write(str(error))
        return REFUSED
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        sys.stderr.write(f"The report would have more than {_MAX_FILE_BYTES // 1024**2} MiB.")
        return REFUSED
    return 0


def _render(stored_format: str, format_name: str) -> None:
    renderer = FORMATS[stored_format][format_name].render
    assert renderer is not None
    with open(os.dup(1), "wb") as target:
        os.dup2(2, 1)  # The output of a library is not part of the report.
        renderer("/dev/stdin", target)


def _limit(size_bytes: int) -> None:
    """Drops rights and resources: the artifact may be damaged on purpose, and its reader may crash or be taken over."""
    if sys.platform != "linux":  # Others have no such limits, or do not keep to them.
        return
    import resource

    # No limit of the address space: V8, which draws the charts, reserves far more than it uses. The limit of CPU time
    # ends the process when the server, which keeps the time-out, has been killed.
    limits = {
        resource.RLIMIT_DATA: size_bytes,
        resource.RLIMIT_CPU: _MAX_CPU_S,
        resource.RLIMIT_FSIZE: _MAX_FILE_BYTES,
        resource.RLIMIT_NOFILE: _MAX_FILES,
        resource.RLIMIT_CORE: 0,
    }
    for limit, value in limits.items():
        highest = resource.getrlimit(limit)[1]
        lower = value if highest == resource.RLIM_INFINITY else min(value, highest)
        resource.setrlimit(limit, (lower, lower))
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NO_NEW_PRIVS, *map(ctypes.c_ulong, (1, 0, 0, 0))):
        raise OSError(ctypes.get_errno(), "prctl failed")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
