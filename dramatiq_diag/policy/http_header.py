"""Decides whether an HTTP request may ask for diagnostics of the tasks that it sends."""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass

from ..collectors.names import ALL, all_names, expand

#: The headers of a request for diagnostics, and the header with its result.
HEADER = "X-Task-Diagnostics"
KEY_HEADER = "X-Task-Diagnostics-Key"
RESULT_HEADER = "X-Task-Diagnostics-Result"

#: A longer header is ignored, in characters.
_MAX_LENGTH = 1000

#: The header of the answer repeats only names of this form, as a request may contain anything.
_NAME = re.compile("[A-Za-z0-9_-]{1,40}")

#: The most ignored names that the answer contains.
_MAX_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class HeaderDecision:
    """The result of a request for diagnostics."""

    names: tuple[str, ...]
    "The requested names that are allowed."
    result: str
    "The value of the response header. From the request it repeats only names: letters, digits, dashes, underscores."


class HeaderPolicy:
    """Decides about the headers of requests.

    Parameters:
      names: The names that may be requested: those of both settings, as for a message. A list replaces the one for
        every task, so it has to be able to name that too.
      key: The key that a request must have; None if none is set.
      open_to_all: Whether requests need no key if none is set. Then anybody who reaches the application can start
        collectors, which cost the workers time and memory.
    """

    def __init__(self, names: tuple[str, ...], key: str | None, *, open_to_all: bool = False) -> None:
        # Not only the installed ones: the workers may have more than the machine that answers requests.
        self._allowed = frozenset(expand(names, here=False))
        self._key = None if key is None else key.encode()
        self._open_to_all = open_to_all

    def decide(self, wanted: bytes | None, key: bytes | None) -> HeaderDecision | None:
        """Decides about a request.

        Parameters:
          wanted: Its header: names separated by commas.
          key: Its header with the key.

        Returns:
          The decision; None for a request that does not ask for diagnostics.
        """
        if wanted is None or not wanted.strip():
            return None
        if self._key is None and not self._open_to_all:
            return HeaderDecision(names=(), result="ignored: DRAMATIQ_DIAG_REQUEST_KEY is not set")
        if self._key is not None and not hmac.compare_digest(key or b"", self._key):
            fault = "is missing" if key is None else "is not the right one"
            return HeaderDecision(names=(), result=f"ignored: {KEY_HEADER} {fault}")
        if len(wanted) > _MAX_LENGTH:
            return HeaderDecision(names=(), result=f"ignored: more than {_MAX_LENGTH} characters")
        names = dict.fromkeys(name.strip() for name in wanted.decode("latin-1").split(",") if name.strip())
        meant = {name: None for name in all_names(here=False) if name in self._allowed} if ALL in names else {}
        accepted = tuple(meant | {name: None for name in names if name in self._allowed})
        ignored = [name for name in names if name not in self._allowed and not (name == ALL and meant)]
        texts = [f"accepted: {', '.join(accepted)}"] if accepted else []
        if ignored:
            texts.append(f"ignored: {_listed(ignored)}, of neither TASK_DIAGNOSTICS nor TASK_DIAGNOSTICS_ON_REQUEST")
        return HeaderDecision(names=accepted, result="; ".join(texts))


def _listed(names: list[str]) -> str:
    """Returns: The first of these names that may appear in a header, and the number of the others."""
    shown = [name for name in names if _NAME.fullmatch(name)][:_MAX_NAMED]
    others = len(names) - len(shown)
    return ", ".join([*shown, f"{others} more"] if others and shown else shown or [f"{others}"])
