"""Reads the headers by which a client says what it has already, and which encodings it takes."""

from __future__ import annotations

import re

import falcon

_CODING = re.compile(r"\s*(?P<name>[^\s;]+)\s*(?:;\s*q\s*=\s*(?P<weight>[0-9.]+)\s*)?", re.IGNORECASE)


def has_already(req: falcon.Request, etag: str) -> bool:
    """Returns: Whether `If-None-Match` has the tag, or `*`."""
    tags = (req.get_header("If-None-Match") or "").split(",")
    return any(tag.strip().removeprefix("W/") in ("*", etag) for tag in tags)


def accepts_gzip(req: falcon.Request) -> bool:
    """Returns: Whether `Accept-Encoding` names gzip, or its other name x-gzip, with a weight above 0."""
    for coding in (req.get_header("Accept-Encoding") or "").split(","):
        match = _CODING.fullmatch(coding)
        if match is not None and match["name"].lower() in ("gzip", "x-gzip"):
            return match["weight"] is None or match["weight"].strip("0.") != ""
    return False
