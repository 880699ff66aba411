"""Loads the templates of the pages, and has their filters."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import urlencode

import falcon
from jinja2 import Environment, PackageLoader, StrictUndefined

from ..documents.fields import actor_href, task_href, timestamp
from ..documents.run_figures import COMPARED_FIGURES, LISTED_FIGURES, RUN_FIGURES, SHOWN_IN
from ..documents.runs import absence
from ..statuses import MemoryRole
from ..text import counted, format_duration, format_size

#: A page loads scripts, styles, pictures, data and frames from its own server. Nothing is inline.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
)


def make_templates() -> Environment:
    """Returns: The templates; each is read on first use."""
    templates = Environment(
        loader=PackageLoader("dramatiq_diag.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.globals |= {
        "compared_figures": COMPARED_FIGURES,
        "listed_figures": LISTED_FIGURES,
        "run_figures": RUN_FIGURES,
        "shown_in": SHOWN_IN,
    }
    templates.filters |= {
        "absence": absence,
        "role": MemoryRole,
        "duration": format_duration,
        "size": format_size,
        "counted": counted,
        "iso": _iso,
        "form_moment": _form_moment,
        "moment": _moment,
        "elapsed": _elapsed,
        "pretty": partial(json.dumps, indent=2, ensure_ascii=False),
        "actor_href": actor_href,
        "task_href": task_href,
    }
    return templates


def query_with(req: falcon.Request, **changes: str | None) -> str:
    """Returns: The query of a request with some parameters changed; those that are None are left out."""
    params: dict[str, Any] = {**req.params, **changes}
    return "?" + urlencode({name: value for name, value in params.items() if value is not None}, doseq=True)


def _iso(moment: datetime | str) -> str:
    """Returns: A moment in RFC 3339; documents have it so already."""
    return moment if isinstance(moment, str) else timestamp(moment)


def _form_moment(moment: datetime) -> str:
    """Returns: A moment as the value of a field `datetime-local`, in UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")


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
