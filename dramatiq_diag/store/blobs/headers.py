"""The HTTP headers that an artifact goes out with, from the web part or from an object store."""

from __future__ import annotations

import re
from urllib.parse import quote

#: The media types that a browser shows; it saves all others.
_SHOWN = ("text/html", "text/plain", "image/png")
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+")


def is_page(media_type: str) -> bool:
    """Returns: Whether a browser would run scripts of it: then it goes out with a sandboxing policy alone."""
    return media_type.lower() == "text/html"


def file_headers(media_type: str, filename: str) -> dict[str, str]:
    """Returns: Content-Type, and Content-Disposition by RFC 6266: a name that is safe to quote, and the exact one."""
    media_type = media_type.lower() if _MEDIA_TYPE.fullmatch(media_type) else "application/octet-stream"
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", filename)
    disposition = f'{"inline" if media_type in _SHOWN else "attachment"}; filename="{plain}"'
    if plain != filename:
        disposition += f"; filename*=UTF-8''{quote(filename, safe='', errors='replace')}"
    return {
        "Content-Type": f"{media_type}; charset=utf-8" if media_type.startswith("text/") else media_type,
        "Content-Disposition": disposition,
    }
