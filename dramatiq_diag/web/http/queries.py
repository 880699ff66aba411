"""What may stand behind the question mark of a URL: read, judged and described in one place."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Self
from uuid import UUID

import falcon
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ...statuses import RunStatus
from ...store.runs import RunFilter, Sort

#: Runs on a page of a list.
DEFAULT_LIMIT = 50
_MAX_LIMIT = 1000
#: Far beyond any number of attempts, and well within what can be compared.
_MAX_ATTEMPT = 10**18
#: Beyond any duration in seconds, or size in MiB.
_MAX_FIGURE = 1e12
_MEBIBYTE = 1024**2

_WHOLE_NUMBER = re.compile(r"[0-9]{1,19}")
_DECIMAL = re.compile(r"[0-9]{1,13}(\.[0-9]{1,9})?")


def _whole_number(value: Any) -> int:
    if not _WHOLE_NUMBER.fullmatch(value):
        raise ValueError("it must be a whole number")
    return int(value)


def _decimal(value: Any) -> float:
    if not _DECIMAL.fullmatch(value):
        raise ValueError("it must be a number, such as 1.5")
    return float(value)


def _moment(value: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError("it must be a date and time of ISO 8601, such as 2026-11-22T13:40; without zone in UTC") from (
            error
        )


def _one_of(choices: type[enum.StrEnum]) -> Callable[[Any], enum.StrEnum]:
    def read(value: Any) -> enum.StrEnum:
        if value not in list(choices):
            raise ValueError(f"it must be one of {', '.join(choices)}")
        return choices(value)

    return read


def _uuid(value: Any) -> UUID:
    try:
        return UUID(value)
    except ValueError as error:
        raise ValueError("it must be the `run_id` of a run") from error


def _capture_id(value: Any) -> UUID:
    try:
        return UUID(value)
    except ValueError as error:
        raise ValueError("it must be the `capture_id` of a capture") from error


_Figure = Annotated[float, Field(ge=0, le=_MAX_FIGURE), BeforeValidator(_decimal)]
_Moment = Annotated[datetime, BeforeValidator(_moment), Field(json_schema_extra={"format": "iso8601"})]


class Range(enum.StrEnum):
    """How far back the chart of an actor reaches."""

    HOUR = "1h"
    DAY = "24h"
    WEEK = "7d"
    MONTH = "30d"
    ALL = "all"


class Query(BaseModel):
    """The parameters of one kind of request; one that is empty counts as absent, as forms send those too."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    @classmethod
    def read(cls, req: falcon.Request) -> Self:
        """Returns: The parameters of a request. Raises: falcon.HTTPBadRequest for one that is not allowed."""
        given = {name: value for name in cls.model_fields if (value := req.get_param(name))}
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise falcon.HTTPBadRequest(description=in_words(error)) from error


def in_words(error: ValidationError) -> str:
    """Returns: What is wrong with the first of the values that are."""
    first = error.errors()[0]
    name = first["loc"][0] if first["loc"] else "?"
    if first["type"] == "missing":
        return f"`{name}` is missing."
    reason = first.get("ctx", {}).get("error") or first["msg"].replace("Input should be", "it must be")
    return f"`{name}` is {first['input']!r:.80}; {reason}."


class PageQuery(Query):
    """Which part of a list."""

    limit: Annotated[int, Field(ge=1, le=_MAX_LIMIT), BeforeValidator(_whole_number)] = DEFAULT_LIMIT
    "Runs on a page."
    cursor: str | None = None
    "Where to go on: the `next` of the page before."


class TaskQuery(PageQuery):
    """Which part of a task's runs."""

    limit: Annotated[int, Field(ge=1, le=_MAX_LIMIT), BeforeValidator(_whole_number)] = _MAX_LIMIT
    "Runs on a page."


class RunsQuery(PageQuery):
    """Which runs, and in what order."""

    actor: str | None = None
    "The name of an actor."
    queue: str | None = None
    "The name of a queue."
    status: Annotated[RunStatus | None, BeforeValidator(_one_of(RunStatus))] = None
    "How the runs stand."
    task_id: str | None = None
    "A task's id, or how it begins."
    since: _Moment | None = None
    "Only runs that started then or later; ISO 8601, in UTC where it has no zone."
    until: _Moment | None = None
    "Only runs that started before."
    min_duration_s: _Figure | None = None
    "Only runs that took so many seconds or more."
    max_duration_s: _Figure | None = None
    "Only runs that took so many seconds or less."
    min_peak_rss_mib: _Figure | None = None
    "Only runs whose peak RSS was so many MiB or more."
    capture: Annotated[UUID, BeforeValidator(_capture_id)] | None = None
    "Only runs that this capture asked for: its `capture_id`."
    sort: Annotated[Sort, BeforeValidator(_one_of(Sort))] = Sort.NEWEST
    "What comes first: the newest, the slowest, or what took most memory."

    @property
    def wanted(self) -> RunFilter:
        """The runs that are asked for."""
        return RunFilter(
            actor_name=self.actor,
            queue_name=self.queue,
            status=self.status,
            task_id=self.task_id,
            started_since=self.since,
            started_before=self.until,
            min_duration_ms=None if self.min_duration_s is None else self.min_duration_s * 1000,
            max_duration_ms=None if self.max_duration_s is None else self.max_duration_s * 1000,
            min_peak_rss_bytes=None if self.min_peak_rss_mib is None else int(self.min_peak_rss_mib * _MEBIBYTE),
            capture_id=self.capture,
        )


class ActorQuery(PageQuery):
    """Which part of an actor's runs."""

    range: Annotated[Range | None, BeforeValidator(_one_of(Range))] = None
    "How far back the chart of the page reaches; it says nothing of the runs in the list."


class ActorsQuery(Query):
    """Which runs of the actors count."""

    since: _Moment | None = None
    "Only runs that started then or later; ISO 8601, in UTC where it has no zone."


class CapturesQuery(Query):
    """Which captures."""

    actor: str | None = None
    "The name of an actor."
    limit: Annotated[int, Field(ge=1, le=_MAX_LIMIT), BeforeValidator(_whole_number)] = DEFAULT_LIMIT
    "How many at most."


class AttemptQuery(Query):
    """Which run of a task."""

    attempt: Annotated[int, Field(ge=1, le=_MAX_ATTEMPT), BeforeValidator(_whole_number)] | None = None
    "The attempt; without it the latest that has ended, or the running one if none has."


class CompareQuery(Query):
    """Which two runs."""

    a: Annotated[UUID, BeforeValidator(_uuid)]
    "The `run_id` of the run that is compared with."
    b: Annotated[UUID, BeforeValidator(_uuid)]
    "The `run_id` of the run in question."


class DownloadQuery(Query):
    """What a signed URL says."""

    expires: str | None = None
    "Until when the URL is valid, in seconds since the epoch; part of what is signed."
    signature: str | None = None
    "The signature that `profile_artifacts` gave."
    format: str | None = None
    "The form of the file, where it has several."
