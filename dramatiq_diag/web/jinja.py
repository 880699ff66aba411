"""Pages: templates that Jinja renders, and what they have at hand."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import falcon
from jinja2 import Environment, PackageLoader, StrictUndefined

from ..documents.fields import actor_href
from ..documents.runs import absence
from ..text import format_duration, format_size
from .http.negotiation import HTML

#: What a page may load: its own server's scripts, styles, pictures, data and frames. Nothing is inline.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
)


class Pages:
    """The templates, read when they are first needed."""

    def __init__(self) -> None:
        self._templates = Environment(
            loader=PackageLoader("dramatiq_diag.web"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= {
            "absence": absence,
            "duration": format_duration,
            "size": format_size,
            "moment": _moment,
            "ago": _ago,
            "actor_href": actor_href,
        }

    def show(self, req: falcon.Request, resp: falcon.Response, template: str, mount: str, **values: Any) -> None:
        """Answers with a page.

        Parameters:
          template: The name of its file.
          mount: The path that the app is mounted at, without a slash at its end.
          values: What the template works with, besides `mount`, `here` and `with_query`.
        """
        page = self._templates.get_template(template)
        resp.text = page.render(mount=mount, here=req.path, with_query=_with_query(req), **values)
        resp.content_type = f"{HTML}; charset=utf-8"
        resp.set_header("Content-Security-Policy", PAGE_POLICY)


def _with_query(req: falcon.Request) -> Any:
    def changed(**changes: str | None) -> str:
        """Returns: The query of this request with some parameters changed; those that are None are left out."""
        params: dict[str, Any] = {**req.params, **changes}
        return "?" + urlencode({name: value for name, value in params.items() if value is not None}, doseq=True)

    return changed


def _moment(timestamp: str | None) -> str:
    """Returns: A timestamp of a document for a person."""
    return "-" if timestamp is None else f"{timestamp[:10]} {timestamp[11:19]} UTC"


def _ago(timestamp: str) -> str:
    """Returns: How long ago a timestamp of a document was."""
    elapsed_s = max((datetime.now(UTC) - datetime.fromisoformat(timestamp)).total_seconds(), 0)
    for unit, length_s in (("d", 86400), ("h", 3600), ("min", 60)):
        if elapsed_s >= 2 * length_s:
            return f"{elapsed_s / length_s:.0f} {unit}"
    return f"{elapsed_s:.0f} s"
