"""Defines the query parameters of each request: reads, checks and describes them."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Self, TypeVar
from uuid import UUID

import falcon
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ...statuses import RunStatus
from ...store.runs import RunFilter, Sort
from ...text import MIB, parse_moment

#: Runs on a page of a list.
DEFAULT_LIMIT = 50
_MAX_LIMIT = 1000
#: Far beyond any number of attempts, and small enough for a column.
_MAX_ATTEMPT = 10**18
#: Beyond any duration in seconds, or size in MiB.
_MAX_FIGURE = 1e12

_T = TypeVar("_T")


def _reader(read: Callable[[str], _T], rule: str) -> BeforeValidator:
    """Returns: A validator that reads a text; for a text that cannot be read, the rule becomes the error."""

    def validate(value: Any) -> _T:
        try:
            return read(value)
        except (ValueError, KeyError) as error:
            raise ValueError(rule) from error

    return BeforeValidator(validate)


def _matching(pattern: str, read: Callable[[str], _T]) -> Callable[[str], _T]:
    def checked(value: str) -> _T:
        if not re.fullmatch(pattern, value):
            raise ValueError
        return read(value)

    return checked


def _one_of(choices: type[enum.StrEnum]) -> BeforeValidator:
    return _reader(choices, f"it must be one of {', '.join(choices)}")


_WHOLE_NUMBER = _reader(_matching("[0-9]{1,19}", int), "it must be a whole number")
_DECIMAL = _reader(_matching(r"[0-9]{1,13}(\.[0-9]{1,9})?", float), "it must be a number, such as 1.5")
_BOOLEAN = _reader({"true": True, "false": False}.__getitem__, "it must be true or false")
_MOMENT = _reader(
    parse_moment,
    "it must be a time of ISO 8601, such as 2026-11-22T13:40, without a zone in UTC; or an age, such as 2h",
)

_Limit = Annotated[int, Field(ge=1, le=_MAX_LIMIT), _WHOLE_NUMBER]
_Figure = Annotated[float, Field(ge=0, le=_MAX_FIGURE), _DECIMAL]
_Moment = Annotated[datetime, _MOMENT, Field(json_schema_extra={"format": "iso8601"})]
_RunId = Annotated[UUID, _reader(UUID, "it must be the `run_id` of a run")]
_TraceId = Annotated[
    str, _reader(_matching("[0-9a-fA-F]{32}", str.lower), "it must be the id of a trace, 32 hexadecimal digits")
]
_CaptureId = Annotated[UUID, _reader(UUID, "it must be the `capture_id` of a capture")]


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 6)  # 1.001 times 1000 is a little less than 1001.


class Range(enum.StrEnum):
    """How far back the chart of an actor reaches."""

    HOUR = "1h"
    DAY = "24h"
    WEEK = "7d"
    MONTH = "30d"
    ALL = "all"


class Query(BaseModel):
    """The parameters of a request. Empty parameters count as absent, because forms send them too."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    @classmethod
    def read(cls, req: falcon.Request) -> Self:
        """Returns: The parameters of a request. Raises: falcon.HTTPBadRequest when one is not allowed."""
        given = {name: value for name in cls.model_fields if (value := req.get_param(name))}
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise falcon.HTTPBadRequest(description=in_words(error)) from error


def in_words(error: ValidationError, shown: Callable[[Any], str] = repr) -> str:
    """Returns: A sentence about the first wrong value, which *shown* makes a text of."""
    first = error.errors()[0]
    name = first["loc"][0] if first["loc"] else "?"
    if first["type"] == "missing":
        return f"`{name}` is missing."
    reason = first.get("ctx", {}).get("error") or first["msg"].replace("Input should be", "it must be")
    return f"`{name}` is {shown(first['input']):.80}; {reason}."


class PageQuery(Query):
    """Which part of a list."""

    limit: _Limit = DEFAULT_LIMIT
    "Runs on a page."
    cursor: str | None = None
    "The `next` of the previous page."


class TaskQuery(PageQuery):
    """Which part of a task's runs."""

    limit: _Limit = _MAX_LIMIT
    "Runs on a page."


class RunsQuery(PageQuery):
    """Which runs, and in what order."""

    actor: str | None = None
    "The name of an actor."
    queue: str | None = None
    "The name of a queue."
    status: Annotated[RunStatus | None, _one_of(RunStatus)] = None
    "The status of the runs."
    task_id: str | None = None
    "The id of a task, or its beginning."
    since: _Moment | None = None
    "Only runs that started then or later; ISO 8601, without a zone in UTC, or an age such as `2h`."
    until: _Moment | None = None
    "Only runs that started before."
    min_duration_s: _Figure | None = None
    "Only runs that took so many seconds or more."
    max_duration_s: _Figure | None = None
    "Only runs that took so many seconds or less."
    min_peak_rss_mib: _Figure | None = None
    "Only runs whose peak RSS was so many MiB or more."
    capture: _CaptureId | None = None
    "Only runs of the capture with this `capture_id`."
    trace_id: _TraceId | None = None
    "Only runs of this trace, by its 32 hexadecimal digits."
    stuck: Annotated[bool | None, _BOOLEAN] = None
    "`true` for only the runs that are stuck, `false` for all others."
    sort: Annotated[Sort, _one_of(Sort)] = Sort.NEWEST
    "The order: newest, slowest, or most memory first."

    @property
    def wanted(self) -> RunFilter:
        """The filter of the runs."""
        return RunFilter(
            actor_name=self.actor,
            queue_name=self.queue,
            status=self.status,
            task_id=self.task_id,
            started_since=self.since,
            started_before=self.until,
            min_duration_ms=None if self.min_duration_s is None else _milliseconds(self.min_duration_s),
            max_duration_ms=None if self.max_duration_s is None else _milliseconds(self.max_duration_s),
            min_peak_rss_bytes=None if self.min_peak_rss_mib is None else int(self.min_peak_rss_mib * MIB),
            capture_id=self.capture,
            trace_id=self.trace_id,
            is_stuck=self.stuck,
        )


class ActorQuery(PageQuery):
    """Which part of an actor's runs."""

    range: Annotated[Range | None, _one_of(Range)] = None
    "How far back the chart of the page reaches; it does not filter the list."


class ActorsQuery(Query):
    """Which runs of the actors count."""

    since: _Moment | None = None
    "Only runs that started then or later; ISO 8601, without a zone in UTC, or an age such as `2h`."


class LeaksQuery(Query):
    """Which windows of the live memory count."""

    since: _Moment | None = None
    "Only windows that ended then or later; ISO 8601, without a zone in UTC, or an age such as `24h`."


class CapturesQuery(Query):
    """Which captures."""

    actor: str | None = None
    "The name of an actor."
    limit: _Limit = DEFAULT_LIMIT
    "The most captures."


class WorkersQuery(Query):
    """Which worker processes."""

    all: Annotated[bool, _BOOLEAN] = False
    "Also those of the last day that are gone, or lost for more than an hour."
    limit: _Limit = 1000
    "The most processes."


class AttemptQuery(Query):
    """Which run of a task."""

    attempt: Annotated[int, Field(ge=1, le=_MAX_ATTEMPT), _WHOLE_NUMBER] | None = None
    "The attempt; without it the latest ended one, or the running one if none has ended."


class LiveQuery(Query):
    """Which run of a task."""

    attempt: Annotated[int, Field(ge=1, le=_MAX_ATTEMPT), _WHOLE_NUMBER] | None = None
    "The attempt; without it the one that is executed, or else the newest one."


class CompareQuery(Query):
    """Which two runs."""

    a: _RunId
    "The `run_id` of the first run."
    b: _RunId
    "The `run_id` of the second run."


class DownloadQuery(Query):
    """The parameters of a signed URL."""

    expires: str | None = None
    "The end of the URL's validity, in seconds since the epoch; the signature covers it."
    signature: str | None = None
    "The signature that `profile_artifacts` gave."
    format: str | None = None
    "The format of the file, if it has several."
