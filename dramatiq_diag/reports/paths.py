"""Shortens the paths of source files to the part that tells them apart."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable

# Everything up to the packages of an environment, or up to the standard library of a Python. The greedy beginning finds
# the innermost one.
_ENVIRONMENT = re.compile(r".*[/\\](?:(?:site|dist)-packages|[Ll]ib(?:64)?[/\\]python3\.\d+t?)[/\\]")


def shorten_paths(paths: Iterable[str]) -> dict[str, str]:
    """Shortens paths: without the path of the environment, of the standard library, or the directory they share.

    Returns:
      Path -> its short form; the path itself where two paths would have the same short form.
    """
    paths = set(paths)
    short = {path: _ENVIRONMENT.sub("", path) for path in paths}
    own = [path for path in paths if short[path] == path and os.path.isabs(path)]
    shared = os.path.commonpath([os.path.dirname(path) for path in own]) if own else ""
    short |= {path: os.path.relpath(path, shared) for path in own}
    counts = Counter(short.values())
    return {path: short[path] if counts[short[path]] == 1 else path for path in paths}
