"""Styles and scripts: ours out of this package, and the charts' out of vl-convert's."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from importlib.resources import files

import falcon

from ...errors import NotInstalledError
from ...reports.errors import ReportError
from ...reports.process import TIMEOUT_S
from ...runtime.interpreter import environment, python_command

_JAVASCRIPT = "text/javascript; charset=utf-8"
_OWN = {"style.css": "text/css; charset=utf-8", "pages.js": _JAVASCRIPT}
_CHARTS = "charts.js"


@dataclass(frozen=True, kw_only=True)
class _File:
    content: bytes
    media_type: str
    etag: str
    packed: bytes


class StaticResource:
    """The files that pages load, kept in memory once they were asked for."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        self._lock = threading.Lock()

    def on_get(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        if name != _CHARTS and name not in _OWN:
            raise falcon.HTTPNotFound
        file = self._file(name)
        resp.set_header("ETag", f'"{file.etag}"')
        resp.set_header("Cache-Control", "private, no-cache")
        resp.set_header("Vary", "Accept-Encoding")
        if f'"{file.etag}"' in (req.get_header("If-None-Match") or ""):
            resp.status = falcon.HTTP_304
            return
        resp.content_type = file.media_type
        if "gzip" in (req.get_header("Accept-Encoding") or ""):
            resp.set_header("Content-Encoding", "gzip")
            resp.data = file.packed
        else:
            resp.data = file.content

    on_head = on_get

    def _file(self, name: str) -> _File:
        with self._lock:  # The charts' script takes a second to make, and several requests would make it at once.
            if name not in self._files:
                content = (
                    _charts_script() if name == _CHARTS else (files("dramatiq_diag.web") / "static" / name).read_bytes()
                )
                self._files[name] = _File(
                    content=content,
                    media_type=_JAVASCRIPT if name == _CHARTS else _OWN[name],
                    etag=hashlib.sha256(content).hexdigest()[:32],
                    packed=gzip.compress(content, mtime=0),
                )
            return self._files[name]


def _charts_script() -> bytes:
    # In a process of its own: the JavaScript engine that makes it would stay in this one.
    command = python_command("dramatiq_diag.reports.charts:write_bundle")
    with tempfile.TemporaryDirectory(prefix="dramatiq_diag-", ignore_cleanup_errors=True) as scratch:
        try:
            made = subprocess.run(  # noqa: S603
                command,
                capture_output=True,
                check=False,
                cwd=scratch,
                env=environment(scratch),
                timeout=TIMEOUT_S,
            )
        except subprocess.TimeoutExpired as error:
            raise ReportError(f"The script of the charts was given up after {TIMEOUT_S:g} s.") from error
    if made.returncode or not made.stdout:
        last_line = made.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise NotInstalledError(
            f"The script of the charts cannot be made ({last_line}); vl-convert-python makes it: "
            "pip install 'dramatiq_diag[web]'"
        )
    return made.stdout
