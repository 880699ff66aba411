"""Reads, checks and describes the bodies of requests, up to a limit of size."""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qs

import falcon
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...policy.options import DiagnosticsRequest, parse_request
from ...store.attachments import MAX_FOR_S, MIN_FOR_S, USUAL_FOR_S
from ...store.captures import MAX_DURATION_S, MAX_RUNS, MIN_DURATION_S
from ...store.columns import NAME_LENGTH
from .queries import in_words

#: The limits of a body, far above the needed size; in bytes.
_MAX_BODY_BYTES = 64 * 1024
_MAX_FIELDS = 100
#: Diagnostics in one capture.
_MAX_NAMES = 50

_Name = Annotated[str, Field(min_length=1, max_length=100)]
_Names = Annotated[list[_Name], Field(min_length=1, max_length=_MAX_NAMES)]
_NamesWithOptions = Annotated[dict[_Name, dict[str, Any]], Field(min_length=1, max_length=_MAX_NAMES)]
_Kind = TypeVar("_Kind", bound="_Body")


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class CaptureBody(_Body):
    """The capture to create."""

    actor_name: Annotated[str, Field(min_length=1, max_length=NAME_LENGTH)]
    diagnostics: _Names | _NamesWithOptions
    "Names, or name -> options."
    runs: Annotated[int, Field(ge=1, le=MAX_RUNS)] = 1
    "How many runs."
    for_s: Annotated[float, Field(ge=MIN_DURATION_S, le=MAX_DURATION_S, allow_inf_nan=False)] = 3600.0
    "Seconds after which it ends."
    unknown_actor: bool = False
    "Whether the actor may be one that no worker has, and without a stored run."


class AttachmentBody(_Body):
    """What is to be collected of a running task."""

    diagnostics: _Names | _NamesWithOptions
    "Names, or name -> options."
    for_s: Annotated[float, Field(ge=MIN_FOR_S, le=MAX_FOR_S, allow_inf_nan=False)] = USUAL_FOR_S
    "Seconds after which it ends, if the run does not end before."


def read_json(req: falcon.Request, body: type[_Kind]) -> _Kind:
    """Returns: The body of a request. Raises: falcon.HTTPError when it is not allowed."""
    try:
        return body.model_validate_json(_read(req, falcon.MEDIA_JSON))
    except ValidationError as error:
        raise falcon.HTTPBadRequest(description=_wrong(error)) from error


def requested(body: CaptureBody | AttachmentBody) -> DiagnosticsRequest:
    """Returns: The diagnostics that a body asks for. Raises: falcon.HTTPBadRequest."""
    try:
        return parse_request(body.diagnostics)
    except ValueError as error:
        raise falcon.HTTPBadRequest(description=f"`diagnostics` is {error}.") from error


def _wrong(error: ValidationError) -> str:
    """Returns: A sentence about the first wrong value of a body, in the words of JSON."""
    first = error.errors()[0]
    if not first["loc"]:
        return f"The body: {first['msg'].lower()}."
    if first["loc"][0] == "diagnostics" and first["type"] != "missing":
        return (
            f"`diagnostics` must be a list of 1 to {_MAX_NAMES} names of diagnostics, or an object that has for each "
            "such name an object with its options."
        )
    return in_words(error, json.dumps)


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
