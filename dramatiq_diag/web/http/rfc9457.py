"""Makes problem documents (RFC 9457)."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

PROBLEM_TYPE = "application/problem+json"

_DETAILS = {
    HTTPStatus.NOT_FOUND: "There is nothing at this address.",
    HTTPStatus.METHOD_NOT_ALLOWED: "This address does not support this method; `Allow` lists those that it does.",
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: "The range begins behind the file's end; `Content-Range` has its size.",
}


def problem_detail(status: HTTPStatus) -> str | None:
    """Returns: The default detail of a status, if it has one."""
    return _DETAILS.get(status)


def problem_document(status: HTTPStatus, detail: str | None = None) -> bytes:
    """Returns: The JSON of a problem.

    Parameters:
      detail: What happened, and the remedy; some statuses have a default.
    """
    document: dict[str, Any] = {"type": "about:blank", "title": status.phrase, "status": int(status)}
    detail = detail or problem_detail(status)
    if detail is not None:
        document["detail"] = detail
    return json.dumps(document).encode("ascii")
