"""Lets the pages of memray count bytes like everything else here does: in KiB, MiB and GiB."""

from __future__ import annotations

import re

#: How the scripts of memray write a size. They have it several times, each with letters of its own.
_SIZE_FORMAT = re.compile(
    r'(?P<small>Math\.abs\(\w+\)<)1e3(?P<bytes>\)return \w+\+" B";const \w+=)'
    r'\["kB","MB","GB","TB","PB","EB","ZB","YB"\]'
    r"(?P<loop>;let \w+=-1;const \w+=10\*\*\w+;do\{\w+/=)1e3"
    r"(?P<round>,\+\+\w+\}while\(Math\.round\(Math\.abs\(\w+\)\*\w+\)/\w+>=)1e3"
)
_BINARY = r'\g<small>1024\g<bytes>["KiB","MiB","GiB","TiB","PiB","EiB","ZiB","YiB"]\g<loop>1024\g<round>1024'


def in_binary_units(page: str) -> str:
    """Returns: A page of memray whose sizes are in KiB and so on; the same page where its scripts are others."""
    return _SIZE_FORMAT.sub(_BINARY, page)
