"""Tracebacks of failed runs: taken without files or frames on the task's thread, and made text later."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from traceback import StackSummary, TracebackException, walk_tb
from types import TracebackType

import dramatiq

#: How long a text is at most, in characters.
MAX_LENGTH = 64 * 1024

#: Of each exception so many frames, the innermost.
_MAX_FRAMES = 100
#: An exception with more causes and parts than this is shown alone.
_MAX_EXCEPTIONS = 20
#: A line of a text is cut in its middle beyond so many characters; a message may be of any length.
_MAX_LINE = 16 * 1024

_DRAMATIQ = os.path.dirname(dramatiq.__file__) + os.sep

#: Gives the lines.
Traceback = Callable[[], Iterable[str]]


def take_traceback(error: BaseException) -> Traceback:
    """Takes what a text is made of; reads no source and keeps no frame. Raises: whatever the exception's parts raise.

    Note:
      `str()` is called on the exception, and on those behind it. The text has no carets below its lines: Python finds
      their places by parsing each line into a syntax tree, and in some releases a task that does the same on another
      thread fails then (python/cpython#106905).
    """
    stack = StackSummary.extract(walk_tb(_shown(error.__traceback__)), limit=-_MAX_FRAMES, lookup_lines=False)
    if _is_large(error):
        return partial(_alone, stack, type(error).__qualname__)
    taken = TracebackException(type(error), error, None, limit=-_MAX_FRAMES, lookup_lines=False, compact=True)
    taken.stack = stack
    _forget_columns(taken)
    return taken.format


def traceback_text(traceback: Traceback) -> str:
    """Makes the text, reading the source. Raises: whatever the exception's parts raise."""
    text = "".join(_cut(line, _MAX_LINE) for line in traceback())
    return _cut(text.encode("utf-8", "backslashreplace").decode(), MAX_LENGTH)  # Not all that is text can be kept.


def _forget_columns(taken: TracebackException) -> None:
    behind: list[TracebackException | None] = [taken]
    while behind:
        each = behind.pop()
        if each is not None:
            for frame in each.stack:
                frame.colno = frame.end_colno = None
            behind += [each.__cause__, each.__context__, *(each.exceptions or ())]


def _alone(stack: StackSummary, name: str) -> list[str]:
    what = f"{name}: its message, causes and parts are left out, as there are more than {_MAX_EXCEPTIONS}.\n"
    return ["Traceback (most recent call last):\n", *stack.format(), what]


def _shown(traceback: TracebackType | None) -> TracebackType | None:
    """Returns: The traceback from the task on; to look where each line of a deep one is would take milliseconds."""
    while traceback is not None and traceback.tb_next is not None:
        if not traceback.tb_frame.f_code.co_filename.startswith(_DRAMATIQ):
            break
        traceback = traceback.tb_next
    ahead = traceback
    for _ in range(_MAX_FRAMES):
        ahead = ahead and ahead.tb_next
    while traceback is not None and ahead is not None:
        traceback, ahead = traceback.tb_next, ahead.tb_next
    return traceback


def _is_large(error: BaseException) -> bool:
    """Returns: Whether there is more behind an exception than is worth the task's time."""
    found: list[BaseException] = [error]
    seen: set[int] = set()
    while found:
        each = found.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        found += [other for other in (each.__cause__, each.__context__) if other is not None]
        if isinstance(each, BaseExceptionGroup):
            found += each.exceptions[: _MAX_EXCEPTIONS + 1]
        if len(seen) > _MAX_EXCEPTIONS:
            return True
    return False


def _cut(text: str, length: int) -> str:
    """Returns: The text; where it is longer, its first quarter, a mark, and its end, which says most."""
    if len(text) <= length:
        return text
    mark = f"\n[{len(text) - length} characters or more are left out here]\n"
    head = length // 4
    return text[:head] + mark + text[len(text) - (length - head - len(mark)) :]
