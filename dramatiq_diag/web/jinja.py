"""Renders pages from templates, with Jinja."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import falcon
from jinja2 import Environment, PackageLoader, StrictUndefined

from ..documents.fields import actor_href, task_href, timestamp
from ..documents.runs import absence
from ..text import format_duration, format_size
from .http.negotiation import HTML

#: A page loads scripts, styles, pictures, data and frames from its own server. Nothing is inline.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
)


class Pages:
    """The templates; each is read on first use."""

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
            "iso": _iso,
            "moment": _moment,
            "elapsed": _elapsed,
            "actor_href": actor_href,
            "task_href": task_href,
        }

    def show(self, req: falcon.Request, resp: falcon.Response, template: str, mount: str, **values: Any) -> None:
        """Answers with a page.

        Parameters:
          template: The name of its file.
          mount: The path that the app is mounted at, without a slash at its end.
          values: The variables of the template, besides `mount` and `with_query`.
        """
        page = self._templates.get_template(template)
        resp.text = page.render(mount=mount, with_query=_with_query(req), **values)
        resp.content_type = f"{HTML}; charset=utf-8"
        resp.set_header("Content-Security-Policy", PAGE_POLICY)


def _with_query(req: falcon.Request) -> Any:
    def changed(**changes: str | None) -> str:
        """Returns: The query of this request with some parameters changed; those that are None are left out."""
        params: dict[str, Any] = {**req.params, **changes}
        return "?" + urlencode({name: value for name, value in params.items() if value is not None}, doseq=True)

    return changed


def _iso(moment: datetime | str) -> str:
    """Returns: A moment in RFC 3339; documents have it so already."""
    return moment if isinstance(moment, str) else timestamp(moment)


def _moment(moment: datetime | str | None) -> str:
    """Returns: A moment in UTC for a person."""
    return "-" if moment is None else f"{_iso(moment)[:19].replace('T', ' ')} UTC"


def _elapsed(moment: datetime) -> str:
    """Returns: The time since a moment."""
    elapsed_s = max((datetime.now(UTC) - moment).total_seconds(), 0)
    for unit, length_s in (("d", 86400), ("h", 3600), ("min", 60)):
        if elapsed_s >= 2 * length_s:
            return f"{elapsed_s / length_s:.0f} {unit}"
    return f"{elapsed_s:.0f} s"
