"""The process that renders a report: `rendering` starts it, with what is stored as stdin and the report as stdout."""

from __future__ import annotations

import os
import sys

from ..errors import NotInstalledError
from .errors import ReportError
from .forms import FORMS
from .rendering import NOT_INSTALLED, REFUSED


def main(stored_form: str, form: str, max_memory_bytes: str) -> int:
    """Returns: The exit status."""
    _limit_memory(int(max_memory_bytes))
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


def _limit_memory(size_bytes: int) -> None:
    try:
        import resource
    except ImportError:  # Windows.
        return
    resource.setrlimit(resource.RLIMIT_AS, (size_bytes, size_bytes))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
