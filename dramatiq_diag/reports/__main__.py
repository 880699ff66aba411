"""The process that renders a report: `rendering` starts it, with what is stored as stdin and the report as stdout."""

from __future__ import annotations

import os
import sys

from ..errors import NotInstalledError
from .errors import ReportError
from .forms import FORMS
from .rendering import NOT_INSTALLED, REFUSED, TIMEOUT_S

#: CPU seconds that it may take, all its threads together.
_MAX_CPU_S = int(4 * TIMEOUT_S)


def main(stored_form: str, form: str, max_memory_bytes: str) -> int:
    """Returns: The exit status."""
    _limit(int(max_memory_bytes))
    renderer = FORMS[stored_form][form].render
    assert renderer is not None
    with open(os.dup(1), "wb") as target:
        os.dup2(2, 1)  # What a library prints is not part of the report.
        try:
            renderer("/dev/stdin", target)
        except NotInstalledError as error:
            sys.stderr.write(str(error))
            return NOT_INSTALLED
        except ReportError as error:
            sys.stderr.write(str(error))
            return REFUSED
    return 0


def _limit(size_bytes: int) -> None:
    if sys.platform != "linux":  # Others have no such limit, or do not keep to it.
        return
    import resource

    # Not the address space: V8, which draws the charts, reserves far more of that than it ever uses. CPU time is for
    # when whoever started this, and keeps its time, is killed.
    for limit, value in ((resource.RLIMIT_DATA, size_bytes), (resource.RLIMIT_CPU, _MAX_CPU_S)):
        highest = resource.getrlimit(limit)[1]
        lower = value if highest == resource.RLIM_INFINITY else min(value, highest)
        resource.setrlimit(limit, (lower, lower))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
