"""Lists the files of a directory whose names match a pattern, with their status."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator


def scan(directory: str | os.PathLike[str], pattern: re.Pattern[str]) -> Iterator[tuple[re.Match[str], os.stat_result]]:
    """Yields the match of each name, and the status of the file. It follows no link, and leaves out what vanishes.

    Raises:
      OSError: When the directory cannot be read.
    """
    with os.scandir(directory) as entries:
        for entry in entries:
            match = pattern.fullmatch(entry.name)
            if match is None:
                continue
            try:
                yield match, entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
