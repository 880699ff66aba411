"""What pyinstrument renders from a stored session: its interactive page, its text, and speedscope's JSON."""

from __future__ import annotations

import json
import os
import re
import secrets
from typing import Any, BinaryIO

from ..errors import NotInstalledError
from ..runtime.bounded_reading import read_up_to
from ..text import printable
from .errors import ReportError

#: The most that is read into memory to be rendered, in bytes.
_MAX_STORED_BYTES = 64 * 1024**2

# Of all that a string could hold, these alone end a script element or change how its end is found.
_MARKUP = re.compile(r"<(?=[/!])")

# The page keeps its view options in the browser's storage, and stops where it may not, as in a sandbox. It asks another
# host for its fonts, which it can do without.
_SANDBOX = """<script>
for (const name of ["localStorage", "sessionStorage"]) {
  try { window[name]; } catch {
    const items = new Map();
    Object.defineProperty(window, name, {value: {
      getItem: key => items.get(key) ?? null,
      setItem: (key, value) => { items.set(key, String(value)); },
      removeItem: key => { items.delete(key); },
    }});
  }
}
const append = document.head.appendChild;
document.head.appendChild = node => node.nodeName === "LINK" ? node : append.call(document.head, node);
</script>"""


# pyinstrument writes a CPU time of 0 where it is not known.
_WITHOUT_CPU = """<script>
addEventListener("load", () => {
  for (const label of document.querySelectorAll("span")) {
    if (label.textContent.startsWith("CPU ")) label.parentElement.style.display = "none";
  }
});
</script>"""
_NO_CPU_TIME = re.compile(r" CPU time: 0\.000$", re.MULTILINE)

#: Ends the description of a frame, and begins the line that it is at.
_AT_LINE = "\1l"


def render_session(path: str, target: BinaryIO) -> None:
    """Renders a session to HTML.

    pyinstrument writes the session's strings into a script element as they are, so what would end the element is
    replaced by a random word before, and by JavaScript's escape of it afterwards: names come out as they went in.

    Parameters:
      path: A file with the JSON of `pyinstrument.session.Session.to_json`.
      target: Where the page is written.

    Raises:
      NotInstalledError: When pyinstrument is missing.
      ReportError: When it is not a session, or too large a one.
    """
    word = f"lt{secrets.token_hex(16)}"
    session = read(path)
    page = _render(_without_markup(session, word), "HTMLRenderer")
    scripts = _SANDBOX if _knows_cpu_time(session) else _SANDBOX + _WITHOUT_CPU
    page = page.replace("<head>", f"<head>{scripts}", 1)
    target.write(page.replace(word, r"\u003c").encode("utf-8", "replace"))


def render_text(path: str, target: BinaryIO) -> None:
    """Renders a session to the tree that pyinstrument prints in a terminal. As `render_session` otherwise."""
    session = read(path)
    text = _render(session, "ConsoleRenderer", unicode=True, color=False)
    if not _knows_cpu_time(session):
        text = _NO_CPU_TIME.sub("", text, count=1)
    target.write("\n".join(map(printable, text.split("\n"))).encode("utf-8", "replace"))


def render_speedscope(path: str, target: BinaryIO) -> None:
    """Renders a session to the JSON that https://www.speedscope.app opens. As `render_session` otherwise."""
    target.write(_render(read(path), "SpeedscopeRenderer", show_all=True).encode("utf-8", "replace"))


def read(path: str) -> Any:
    """Reads what is stored. Raises: ReportError when it is no JSON, or too large."""
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size > _MAX_STORED_BYTES:
            raise ReportError(f"What is stored has over {_MAX_STORED_BYTES} bytes, which is too much to be rendered.")
        stored = read_up_to(file, _MAX_STORED_BYTES)
    try:
        return json.loads(stored)
    except (ValueError, RecursionError) as error:
        raise damaged(error) from error


def _render(session: Any, renderer: str, **options: Any) -> str:
    try:
        from pyinstrument import renderers
        from pyinstrument.session import Session
    except ImportError as error:
        raise NotInstalledError(
            f"RenderProcess this needs pyinstrument, which is not installed ({error}): "
            "pip install 'dramatiq_diag[pyinstrument]'"
        ) from error
    try:
        text: str = getattr(renderers, renderer)(**options).render(Session.from_json(_with_lines(session)))
    except Exception as error:
        raise damaged(error) from error
    return text


def _knows_cpu_time(session: Any) -> bool:
    return session["cpu_time"] is not None


def _with_lines(session: Any) -> Any:
    """Returns: A session with a call for each line at which a function worked or waited by itself.

    pyinstrument shows where a function begins, and not where in it the time went.
    """
    return {**session, "frame_records": [[_with_line(stack), spent_s] for stack, spent_s in session["frame_records"]]}


def _with_line(stack: list[str]) -> list[str]:
    for at in range(len(stack) - 1, -1, -1):
        description, _, rest = stack[at].partition(_AT_LINE)
        if rest:
            line = rest.partition("\1")[0]
            _, _, place = description.partition("\1")[0].partition("\0")
            called = "\0".join((f"line {line}", place.partition("\0")[0], line))
            return [*stack[: at + 1], called, *stack[at + 1 :]]
    return stack


def damaged(error: Exception) -> ReportError:
    """Returns: What says that a session is none."""
    return ReportError(
        f"The stored profile is damaged and cannot be rendered ({type(error).__name__}); see `dramatiq-diag check`."
    )


def _without_markup(value: Any, word: str) -> Any:
    if isinstance(value, str):
        return _MARKUP.sub(word, value)
    if isinstance(value, list):
        return [_without_markup(item, word) for item in value]
    if isinstance(value, dict):
        return {_without_markup(key, word): _without_markup(item, word) for key, item in value.items()}
    return value
