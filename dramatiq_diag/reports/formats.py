"""The forms of artifacts: what is stored, and what is rendered from it when asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from . import calltree, memory, memray, pyinstrument

#: Writes a form to a file, out of what is stored under a path.
Renderer = Callable[[str, BinaryIO], None]


@dataclass(frozen=True, kw_only=True)
class Form:
    """One of the forms that an artifact can be downloaded in."""

    name: str
    filename: str
    media_type: str
    render: Renderer | None = None
    "Makes it from the stored form; None where it is the stored form."


def _forms(*forms: Form) -> dict[str, Form]:
    return {form.name: form for form in forms}


def _call_tree(name: str, render: Renderer, artifact: str) -> Form:
    return Form(name=name, filename=f"{artifact}-{name}.json", media_type="application/json", render=render)


def _memray_forms() -> list[Form]:
    return [
        Form(
            name=view.name,
            filename=f"memray-{view.name}.{'html' if view.is_html else 'txt'}",
            media_type="text/html" if view.is_html else "text/plain",
            render=view.render,
        )
        for view in memray.VIEWS
    ]


#: Name of the stored form -> the name of each form -> the form. The first one is what a plain download gives.
FORMATS: dict[str, dict[str, Form]] = {
    "memory.datum": _forms(
        Form(name="datum", filename="memory.datum", media_type="text/plain"),
        Form(name="csv", filename="memory.csv", media_type="text/csv", render=memory.render_csv),
        Form(name="svg", filename="memory.svg", media_type="image/svg+xml", render=memory.render_svg),
        Form(name="png", filename="memory.png", media_type="image/png", render=memory.render_png),
        Form(name="html", filename="memory.html", media_type="text/html", render=memory.render_html),
        Form(name="chart", filename="memory.json", media_type="application/json", render=memory.render_chart),
    ),
    "pyinstrument.session.json": _forms(
        Form(name="html", filename="pyinstrument.html", media_type="text/html", render=pyinstrument.render_session),
        Form(name="text", filename="pyinstrument.txt", media_type="text/plain", render=pyinstrument.render_text),
        Form(
            name="speedscope",
            filename="pyinstrument.speedscope.json",
            media_type="application/json",
            render=pyinstrument.render_speedscope,
        ),
        _call_tree("calltree", calltree.render_session, "pyinstrument"),
        Form(name="session", filename="pyinstrument.session.json", media_type="application/json"),
    ),
    "memray.bin": _forms(
        Form(name="capture", filename="memray.bin", media_type="application/octet-stream"),
        *_memray_forms(),
        _call_tree("calltree", calltree.render_capture, "memray"),
        _call_tree("calltree-process", calltree.render_whole_capture, "memray"),
    ),
}
