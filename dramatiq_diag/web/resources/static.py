"""Styles and scripts: those of this package, and the script that draws charts."""

from __future__ import annotations

import gzip
import hashlib
import threading
from dataclasses import dataclass
from importlib.resources import files

import falcon

from ...reports.charts.script import charts_script
from ..backend import Backend
from ..http.conditions import accepts_gzip, has_already
from .base import Resource

_JAVASCRIPT = "text/javascript; charset=utf-8"
_MEDIA_TYPES = {"style.css": "text/css; charset=utf-8", "pages.js": _JAVASCRIPT, "charts.js": _JAVASCRIPT}


@dataclass(frozen=True, kw_only=True)
class _File:
    content: bytes
    etag: str
    packed: bytes
    packed_etag: str
    "Another one than `etag`, as a tag stands for exact bytes."


class StaticResource(Resource):
    """The files that pages load; they stay in memory after the first request."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self._files: dict[str, _File] = {}
        self._lock = threading.Lock()

    def on_get(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        if name not in _MEDIA_TYPES:
            raise falcon.HTTPNotFound
        file = self._file(name)
        packs = accepts_gzip(req)
        etag = file.packed_etag if packs else file.etag
        resp.set_header("ETag", etag)
        resp.set_header("Cache-Control", "private, no-cache")
        resp.set_header("Vary", "Accept-Encoding")
        if has_already(req, etag):
            resp.status = falcon.HTTP_304
            return
        resp.content_type = _MEDIA_TYPES[name]
        if packs:
            resp.set_header("Content-Encoding", "gzip")
            resp.data = file.packed
        else:
            resp.data = file.content

    def _file(self, name: str) -> _File:
        with self._lock:  # The script of the charts takes a second to make; only one request makes it.
            if name not in self._files:
                if name == "charts.js":
                    content = charts_script(self._backend.settings.cache)
                else:
                    content = (files("dramatiq_diag.web") / "static" / name).read_bytes()
                digest = hashlib.sha256(content).hexdigest()[:32]
                self._files[name] = _File(
                    content=content,
                    etag=f'"{digest}"',
                    packed=gzip.compress(content, mtime=0),
                    packed_etag=f'"{digest}-gzip"',
                )
            return self._files[name]
