"""Renders stored sessions of pyinstrument: as its interactive page, as text, and as JSON for speedscope."""

from __future__ import annotations

import json
import os
import re
import secrets
from typing import Any, BinaryIO

from ..collectors.time_profile.pruning import ATTRIBUTES, LINE_NUMBER
from ..errors import NotInstalledError
from ..runtime.bounded_reading import read_up_to
from ..text import printable
from .errors import ReportError

#: The largest session that is read into memory, in bytes.
MAX_STORED_BYTES = 64 * 1024**2

# The only beginnings of text that end a script element, or change where it ends.
_MARKUP = re.compile(r"<(?=[/!])")

# The page keeps its view options in the browser's storage, and fails in a sandbox, which has none. It loads fonts from
# another host, which it does not need.
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


# pyinstrument shows an unknown CPU time as 0.
_WITHOUT_CPU = """<script>
addEventListener("load", () => {
  for (const label of document.querySelectorAll("span")) {
    if (label.textContent.startsWith("CPU ")) label.parentElement.style.display = "none";
  }
});
</script>"""
_NO_CPU_TIME = re.compile(r" CPU time: 0\.000$", re.MULTILINE)


def render_session(path: str, target: BinaryIO) -> None:
    """Renders a session to HTML.

    pyinstrument writes the strings of the session into a script element unescaped. So the characters that could end the
    element are replaced by a random word before, and by their JavaScript escape afterwards.

    Parameters:
      path: A file with the JSON of `pyinstrument.session.Session.to_json`.
      target: The file that the page is written to.

    Raises:
      NotInstalledError: When pyinstrument is missing.
      ReportError: When the file is not a session, or too large.
    """
    word = f"lt{secrets.token_hex(16)}"
    session = read(path)
    page = _render(_without_markup(session, word), "HTMLRenderer")
    scripts = _SANDBOX if _knows_cpu_time(session) else _SANDBOX + _WITHOUT_CPU
    page = page.replace("<head>", f"<head>{scripts}", 1)
    target.write(page.replace(word, r"\u003c").encode("utf-8", "replace"))


def render_text(path: str, target: BinaryIO) -> None:
    """Renders a session to the tree that pyinstrument prints in a terminal. Otherwise as `render_session`."""
    session = read(path)
    text = _render(session, "ConsoleRenderer", unicode=True, color=False)
    if not _knows_cpu_time(session):
        text = _NO_CPU_TIME.sub("", text, count=1)
    target.write("\n".join(map(printable, text.split("\n"))).encode("utf-8", "replace"))


def render_speedscope(path: str, target: BinaryIO) -> None:
    """Renders a session to the JSON that https://www.speedscope.app opens. Otherwise as `render_session`."""
    target.write(_render(read(path), "SpeedscopeRenderer", show_all=True).encode("utf-8", "replace"))


def read(path: str, max_bytes: int = MAX_STORED_BYTES) -> Any:
    """Reads a session. Raises: ReportError when it is not JSON, or has more than *max_bytes*."""
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size > max_bytes:
            raise ReportError(f"The stored profile has over {max_bytes} bytes and is too large to be rendered.")
        stored = read_up_to(file, max_bytes)
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
            f"Rendering this needs pyinstrument, which is not installed ({error}): "
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
    """Returns: The session with a call below each function for each line where its own time was spent.

    pyinstrument itself shows only the line where a function begins.
    """
    return {**session, "frame_records": [[_with_line(stack), spent_s] for stack, spent_s in session["frame_records"]]}


def _with_line(stack: list[str]) -> list[str]:
    for at in range(len(stack) - 1, -1, -1):
        description, _, rest = stack[at].partition(LINE_NUMBER)
        if rest:
            line = rest.partition(ATTRIBUTES)[0]
            _, _, place = description.partition(ATTRIBUTES)[0].partition("\0")
            called = "\0".join((f"line {line}", place.partition("\0")[0], line))
            return [*stack[: at + 1], called, *stack[at + 1 :]]
    return stack


def damaged(error: Exception) -> ReportError:
    """Returns: The error for a session that cannot be read."""
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
