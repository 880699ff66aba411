"""Lists the formats of each artifact: the stored one, and those that are rendered from it on request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from . import memory, memray, pyinstrument, resources
from .calltree import write_calltree
from .firefox import write_firefox
from .pprof import write_pprof
from .profiles import Profile, read_allocations, read_session

#: Reads the stored artifact at a path, and writes a format of it to a file.
Renderer = Callable[[str, BinaryIO], None]


@dataclass(frozen=True, kw_only=True)
class Format:
    """One of the formats that an artifact can be downloaded in."""

    name: str
    filename: str
    media_type: str
    render: Renderer | None = None
    "None for the stored format itself."


_TEXT, _HTML, _JSON, _BINARY = "text/plain", "text/html", "application/json", "application/octet-stream"


def _formats(*rows: tuple[str, str, str, Renderer | None]) -> dict[str, Format]:
    return {
        name: Format(name=name, filename=filename, media_type=media_type, render=render)
        for name, filename, media_type, render in rows
    }


def _of_session(write: Callable[[Profile, BinaryIO], None]) -> Renderer:
    return lambda path, target: write(read_session(path), target)


def _of_allocations(write: Callable[[Profile, BinaryIO], None], *, whole_process: bool = False) -> Renderer:
    return lambda path, target: write(read_allocations(path, whole_process=whole_process), target)


#: File name of the stored format -> name of each format -> the format. A plain download gives the first one.
FORMATS: dict[str, dict[str, Format]] = {
    "memory.datum": _formats(
        ("datum", "memory.datum", _TEXT, None),
        ("csv", "memory.csv", "text/csv", memory.render_csv),
        ("svg", "memory.svg", "image/svg+xml", memory.render_svg),
        ("png", "memory.png", "image/png", memory.render_png),
        ("html", "memory.html", _HTML, memory.render_html),
        ("chart", "memory.json", _JSON, memory.render_chart),
    ),
    "pyinstrument.session.json": _formats(
        ("html", "pyinstrument.html", _HTML, pyinstrument.render_session),
        ("text", "pyinstrument.txt", _TEXT, pyinstrument.render_text),
        ("speedscope", "pyinstrument.speedscope.json", _JSON, pyinstrument.render_speedscope),
        ("pprof", "pyinstrument.pb.gz", _BINARY, _of_session(write_pprof)),
        ("firefox", "pyinstrument.firefox.json", _JSON, _of_session(write_firefox)),
        ("calltree", "pyinstrument-calltree.json", _JSON, _of_session(write_calltree)),
        ("session", "pyinstrument.session.json", _JSON, None),
    ),
    "memray.bin": _formats(
        ("capture", "memray.bin", _BINARY, None),
        *(
            (view.name, f"memray-{view.name}.html", _HTML, view.render)
            if view.is_html
            else (view.name, f"memray-{view.name}.txt", _TEXT, view.render)
            for view in memray.VIEWS
        ),
        ("pprof", "memray.pb.gz", _BINARY, _of_allocations(write_pprof)),
        ("pprof-process", "memray-process.pb.gz", _BINARY, _of_allocations(write_pprof, whole_process=True)),
        ("firefox", "memray.firefox.json", _JSON, _of_allocations(write_firefox)),
        ("firefox-process", "memray-process.firefox.json", _JSON, _of_allocations(write_firefox, whole_process=True)),
        ("calltree", "memray-calltree.json", _JSON, _of_allocations(write_calltree)),
        (
            "calltree-process",
            "memray-calltree-process.json",
            _JSON,
            _of_allocations(write_calltree, whole_process=True),
        ),
    ),
    "accounting.json": _formats(("json", "accounting.json", _JSON, None)),
    "resources.csv": _formats(
        ("csv", "resources.csv", "text/csv", None),
        ("chart", "resources.json", _JSON, resources.render_chart),
    ),
}
