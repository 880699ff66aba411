"""The JSON documents about the server itself: its health, how far a report is, and problems."""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from ...documents.fields import described

#: The parts that the server needs.
Part = Literal["database", "blobs"]


@described
class HealthDocument(TypedDict):
    """The server answers."""

    status: Literal["ok"]


@described
class ReadyDocument(TypedDict):
    """Whether the parts that the server needs answer."""

    status: Literal["ok", "unavailable"]
    failing: list[Part]
    "The parts that do not answer; empty if the status is `ok`."


@described
class ProgressDocument(TypedDict):
    """The progress of a rendering; ask again after a second."""

    status: Literal["waiting", "rendering"]
    elapsed_s: float
    "Seconds since it was asked for."
    limit_s: float
    "Seconds after which it is given up."


@described
class ProblemDocument(TypedDict):
    """What went wrong, after RFC 9457."""

    type: str
    title: str
    status: int
    detail: NotRequired[str]
