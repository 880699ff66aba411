"""Whether an HTTP request may ask for diagnostics of what it sends."""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass

from ..collectors.names import ALL, all_names, expand

#: The headers of a request, and the one that says what became of it.
HEADER = "X-Task-Diagnostics"
KEY_HEADER = "X-Task-Diagnostics-Key"
RESULT_HEADER = "X-Task-Diagnostics-Result"

#: A longer header asks for nothing that there is, in characters.
_MAX_LENGTH = 1000

#: A name that may stand in the header of the answer: nothing else that a stranger sent does.
_NAME = re.compile("[A-Za-z0-9_-]{1,40}")

#: So many ignored names are named.
_MAX_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class HeaderDecision:
    """What became of a request for diagnostics."""

    names: tuple[str, ...]
    "What is asked for and allowed."
    result: str
    "For the response header: out of the request it has names alone, of letters, digits, dashes and underscores."


class HeaderPolicy:
    """Judges the headers of requests.

    Parameters:
      on_request: The names that may be asked for.
      key: The key that a request must bring; None where none is set.
      open_to_all: Whether a request may ask without a key where none is set: anybody who reaches the application can
        then start collectors, which cost the workers time and memory.
    """

    def __init__(self, on_request: tuple[str, ...], key: str | None, *, open_to_all: bool = False) -> None:
        # Not what is installed here: the workers may have more than the machine that answers requests.
        self._allowed = frozenset(expand(on_request, here=False))
        self._key = None if key is None else key.encode()
        self._open_to_all = open_to_all

    def decide(self, wanted: bytes | None, key: bytes | None) -> HeaderDecision | None:
        """Decides about a request.

        Parameters:
          wanted: What its header has, names separated by commas.
          key: What the header of the key has.

        Returns:
          What it may ask for, or None for a request that asks for nothing.
        """
        if wanted is None or not wanted.strip():
            return None
        if self._key is None and not self._open_to_all:
            return HeaderDecision(names=(), result="ignored: DRAMATIQ_DIAG_REQUEST_KEY is not set")
        if self._key is not None and not hmac.compare_digest(key or b"", self._key):
            return HeaderDecision(names=(), result=f"ignored: {KEY_HEADER} is not the right one")
        if len(wanted) > _MAX_LENGTH:
            return HeaderDecision(names=(), result=f"ignored: more than {_MAX_LENGTH} characters")
        names = dict.fromkeys(name.strip() for name in wanted.decode("latin-1").split(",") if name.strip())
        meant = {name: None for name in all_names(here=False) if name in self._allowed} if ALL in names else {}
        accepted = tuple(meant | {name: None for name in names if name in self._allowed})
        ignored = [name for name in names if name not in self._allowed and not (name == ALL and meant)]
        texts = [f"accepted: {', '.join(accepted)}"] if accepted else []
        if ignored:
            texts.append(f"ignored: {_listed(ignored)}, which TASK_DIAGNOSTICS_ON_REQUEST does not have")
        return HeaderDecision(names=accepted, result="; ".join(texts))


def _listed(names: list[str]) -> str:
    """Returns: The first of these names, as far as they may stand in a header, and how many others there are."""
    shown = [name for name in names if _NAME.fullmatch(name)][:_MAX_NAMED]
    others = len(names) - len(shown)
    return ", ".join([*shown, f"{others} more"] if others and shown else shown or [f"{others}"])
