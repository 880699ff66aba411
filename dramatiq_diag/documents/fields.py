"""Makes documents from rows, and defines the fields that they share: moments, ids and paths."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, TypeAdapter, with_config

_T = TypeVar("_T")

Document = dict[str, Any]


class Href(str):
    """A path in a document, as it is where the web part is not mounted below another path."""

    __slots__ = ()


def timestamp(moment: datetime) -> str:
    """Returns: RFC 3339 in UTC with microseconds and a Z."""
    text = moment.astimezone(UTC).isoformat(timespec="microseconds")  # `strftime` writes the year 7 with one digit.
    return f"{text.removesuffix('+00:00')}Z"


#: The texts of a moment, an id and a path; a row has the first two as a `datetime` and a `UUID`.
Timestamp = Annotated[str, BeforeValidator(timestamp), Field(json_schema_extra={"format": "date-time"})]
UuidText = Annotated[str, BeforeValidator(str), Field(json_schema_extra={"format": "uuid"})]
HrefText = Annotated[str, AfterValidator(Href)]

#: Makes the text below a field of a document its description in the OpenAPI document.
described = with_config(ConfigDict(use_attribute_docstrings=True))


def document_of(kind: type[_T], row: object, **fields: object) -> _T:
    """Makes a document from the attributes of a row that the document's fields are named after, and from *fields*."""
    values = {name: getattr(row, name) for name in kind.__annotations__ if name not in fields}
    document: _T = _adapter(kind).validate_python(values | fields)  # type: ignore[arg-type] # A class is hashable.
    return document


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def actor_href(actor_name: str) -> str:
    """Returns: The path of an actor."""
    return f"/actors/{quote(actor_name, safe='', errors='replace')}/"


def task_href(task_id: str) -> str:
    """Returns: The path of a task; `profile_artifacts/` goes behind it."""
    return f"/tasks/{quote(task_id, safe='', errors='replace')}/"


def mounted(document: Any, mount: str) -> Any:
    """Returns: A document in which every path begins with the one that the web part is mounted at."""
    if isinstance(document, Href):
        return mount + document
    if isinstance(document, dict):
        return {name: mounted(value, mount) for name, value in document.items()}
    if isinstance(document, list):
        return [mounted(value, mount) for value in document]
    return document
