"""Formats a record of `logging`: a line that begins with its time, and indented lines below it."""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime

from ...errors import GUARDED
from ...runtime.tracebacks import take_traceback, traceback_text

#: The most characters of a message; a traceback has a limit of its own.
MAX_RECORD_CHARACTERS = 65536

#: Characters that control a terminal, end a line, or are not encodable; a tab and a line feed are allowed.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

_BELOW = "\n    "


def text_of(record: logging.LogRecord) -> str:
    """Formats a record. Its objects belong to the application, and any look at them may raise an error.

    Returns:
      The line of the message, and those of the exception and the stack, as far as they can be formatted.

    Raises:
      Exception: When not even time, level or name can be formatted.
    """
    try:
        message = str(record.getMessage())
    except GUARDED as error:
        message = f"<the message could not be made: {type(error).__name__}>"
    # A `logging.Formatter` would store the text of the exception in the record, and others would use it.
    pieces = [_head(record) + _clean(message), *map(_clean, _below(record))]
    return _BELOW.join(piece.replace("\n", _BELOW) for piece in pieces) + "\n"


def _head(record: logging.LogRecord) -> str:
    time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00")
    names = _clean(f"{record.levelname:<8.100} {record.name:.1000}").replace("\n", r"\n")
    return f"{time}Z {names}: "


def _below(record: logging.LogRecord) -> list[str]:
    try:
        return [text for text in (_exception(record), str(record.stack_info or "")) if text]
    except GUARDED as error:
        return [f"<the traceback could not be made: {type(error).__name__}>"]


def _exception(record: logging.LogRecord) -> str:
    if record.exc_info and isinstance(error := record.exc_info[1], BaseException):
        return traceback_text(take_traceback(error)).rstrip("\n")
    return str(record.exc_text or "")


def _clean(text: str) -> str:
    cut = len(text) - MAX_RECORD_CHARACTERS
    if cut > 0:
        text = f"{text[:MAX_RECORD_CHARACTERS]} <{cut} more characters>"
    return _UNPRINTABLE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
