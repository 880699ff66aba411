"""Reads, checks and describes the bodies of requests, up to a limit of size."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qs

import falcon
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...store.captures import MAX_DURATION_S, MAX_RUNS, MIN_DURATION_S
from ...store.models import NAME_LENGTH
from .queries import in_words

#: The limits of a body, far above the needed size.
_MAX_BODY_BYTES = 64 * 1024
_MAX_FIELDS = 100
#: Diagnostics in one capture.
_MAX_NAMES = 50

_Name = Annotated[str, Field(min_length=1, max_length=100)]
_Names = Annotated[list[_Name], Field(min_length=1, max_length=_MAX_NAMES)]
_NamesWithOptions = Annotated[dict[_Name, dict[str, Any]], Field(min_length=1, max_length=_MAX_NAMES)]
_Body = TypeVar("_Body", bound=BaseModel)


class CaptureBody(BaseModel):
    """The capture to create."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    actor_name: Annotated[str, Field(min_length=1, max_length=NAME_LENGTH)]
    diagnostics: _Names | _NamesWithOptions
    "Names, or name -> options."
    runs: Annotated[int, Field(ge=1, le=MAX_RUNS)] = 1
    "How many runs."
    for_s: Annotated[float, Field(ge=MIN_DURATION_S, le=MAX_DURATION_S, allow_inf_nan=False)] = 3600.0
    "Seconds after which it ends."
    unknown_actor: bool = False
    "Whether the actor may be one that no worker has, and without a stored run."


def read_json(req: falcon.Request, body: type[_Body]) -> _Body:
    """Returns: The body of a request. Raises: falcon.HTTPError when it is not allowed."""
    try:
        return body.model_validate_json(_read(req, falcon.MEDIA_JSON))
    except ValidationError as error:
        if not error.errors()[0]["loc"]:
            raise falcon.HTTPBadRequest(description=f"The body: {error.errors()[0]['msg'].lower()}.") from error
        raise falcon.HTTPBadRequest(description=in_words(error)) from error


def read_form(req: falcon.Request) -> dict[str, list[str]]:
    """Returns: The fields of a form. Raises: falcon.HTTPError when the body is not a form."""
    try:
        return parse_qs(_read(req, falcon.MEDIA_URLENCODED).decode(), max_num_fields=_MAX_FIELDS)
    except ValueError as error:
        raise falcon.HTTPBadRequest(description="The body is not a form.") from error


def _read(req: falcon.Request, media_type: str) -> bytes:
    if (req.content_type or "").partition(";")[0].strip().lower() != media_type:
        raise falcon.HTTPUnsupportedMediaType(description=f"The `Content-Type` of the body must be `{media_type}`.")
    data: bytes = b""
    if (req.content_length or 0) <= _MAX_BODY_BYTES:
        data = req.bounded_stream.read(_MAX_BODY_BYTES + 1)
    if len(data) > _MAX_BODY_BYTES or (req.content_length or 0) > _MAX_BODY_BYTES:
        raise falcon.HTTPContentTooLarge(description=f"A body may have at most {_MAX_BODY_BYTES} bytes.")
    return data
