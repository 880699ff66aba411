"""A check of `doctor`, and its result."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import ParamSpec

from ...errors import GUARDED
from ...runtime.loggers import get_logger

_P = ParamSpec("_P")


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


def guarded(
    name: str, check: Callable[_P, Iterable[Check]], *arguments: _P.args, **options: _P.kwargs
) -> Iterator[Check]:
    """Yields the results of a check. An error that it does not expect is a finding, and the other checks go on."""
    try:
        yield from check(*arguments, **options)
    except GUARDED as error:
        get_logger(__name__).debug("The check %s failed.", name, exc_info=True)
        detail = f"the check itself failed with {type(error).__name__}: {error}"
        remedy = "Mend the other findings first; if this one stays, report it as an error of dramatiq_diag."
        yield Check(name, FINDING, detail, remedy)
