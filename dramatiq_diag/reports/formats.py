"""Lists the formats of each artifact: the stored one, and those that are rendered from it on request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from . import calltree, memory, memray, pyinstrument, resources

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


_TEXT, _HTML, _JSON = "text/plain", "text/html", "application/json"


def _formats(*rows: tuple[str, str, str, Renderer | None]) -> dict[str, Format]:
    return {
        name: Format(name=name, filename=filename, media_type=media_type, render=render)
        for name, filename, media_type, render in rows
    }


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
        ("calltree", "pyinstrument-calltree.json", _JSON, calltree.render_session),
        ("session", "pyinstrument.session.json", _JSON, None),
    ),
    "memray.bin": _formats(
        ("capture", "memray.bin", "application/octet-stream", None),
        *(
            (view.name, f"memray-{view.name}.html", _HTML, view.render)
            if view.is_html
            else (view.name, f"memray-{view.name}.txt", _TEXT, view.render)
            for view in memray.VIEWS
        ),
        ("calltree", "memray-calltree.json", _JSON, calltree.render_allocations),
        ("calltree-process", "memray-calltree-process.json", _JSON, calltree.render_all_allocations),
    ),
    "resources.csv": _formats(
        ("csv", "resources.csv", "text/csv", None),
        ("chart", "resources.json", _JSON, resources.render_chart),
    ),
}
