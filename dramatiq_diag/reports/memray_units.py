"""Makes the pages of memray write sizes in KiB, MiB and GiB, like all other pages here."""

from __future__ import annotations

import re

#: The code in memray's scripts that writes a size. It occurs several times, with different names of variables.
_SIZE_FORMAT = re.compile(
    r'(?P<small>Math\.abs\(\w+\)<)1e3(?P<bytes>\)return \w+\+" B";const \w+=)'
    r'\["kB","MB","GB","TB","PB","EB","ZB","YB"\]'
    r"(?P<loop>;let \w+=-1;const \w+=10\*\*\w+;do\{\w+/=)1e3"
    r"(?P<round>,\+\+\w+\}while\(Math\.round\(Math\.abs\(\w+\)\*\w+\)/\w+>=)1e3"
)
_BINARY = r'\g<small>1024\g<bytes>["KiB","MiB","GiB","TiB","PiB","EiB","ZiB","YiB"]\g<loop>1024\g<round>1024'


def in_binary_units(page: str) -> str:
    """Returns: The page with binary units; unchanged if memray's scripts have changed."""
    return _SIZE_FORMAT.sub(_BINARY, page)
