"""A check of `doctor`, and its result."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Status(enum.StrEnum):
    """The result of a check."""

    OK = "ok"
    INFO = "info"
    "Worth knowing; nothing has to be done."
    FINDING = "finding"
    "Something does not work, or soon will not, until the remedy is applied."


OK, INFO, FINDING = Status


@dataclass(frozen=True)
class Check:
    """One check and its result."""

    name: str
    status: Status
    detail: str
    remedy: str | None = None
