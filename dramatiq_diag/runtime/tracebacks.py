"""Takes the tracebacks of failed runs without reading files or keeping frames, and formats them later."""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Callable, Iterable
from functools import partial
from traceback import StackSummary, TracebackException, walk_tb
from types import TracebackType

import dramatiq

#: The most characters of a text.
MAX_LENGTH = 64 * 1024

#: The most frames of an exception; outer ones are left out.
_MAX_FRAMES = 100
#: An exception with more causes and parts than this is shown without them.
_MAX_EXCEPTIONS = 20
#: In characters. A longer line is cut in its middle, as the message of an exception may have any length.
_MAX_LINE = 16 * 1024

#: Where the calls above an actor's function stand. The function of an async one is called in steps by
#: `coroutines` and `coroutine_steps`, and its result is waited for in a future.
_CALLERS = (
    os.path.dirname(dramatiq.__file__) + os.sep,
    os.path.dirname(concurrent.futures.__file__) + os.sep,
    os.path.join(os.path.dirname(__file__), "coroutine"),
)

#: Returns the lines of the traceback.
Traceback = Callable[[], Iterable[str]]


def take_traceback(error: BaseException) -> Traceback:
    """Takes a traceback; reads no source and keeps no frame. Raises: The errors of the exceptions' `__str__`.

    Note:
      The text has no carets below its lines: for them Python parses each line into a syntax tree, and in some releases
      a task that does the same on another thread fails then (python/cpython#106905).
    """
    stack = StackSummary.extract(walk_tb(_shown(error.__traceback__)), limit=-_MAX_FRAMES, lookup_lines=False)
    if _is_large(error):
        return partial(_alone, stack, type(error).__qualname__)
    taken = TracebackException(type(error), error, None, limit=-_MAX_FRAMES, lookup_lines=False, compact=True)
    taken.stack = stack
    _forget_columns(taken)
    return taken.format


def traceback_text(traceback: Traceback) -> str:
    """Returns: The text, with lines of the source. Raises: The errors of the exceptions' `__str__`."""
    text = "".join(_cut(line, _MAX_LINE) for line in traceback())
    return _cut(text.encode("utf-8", "backslashreplace").decode(), MAX_LENGTH)  # Without lone surrogates.


def _forget_columns(taken: TracebackException) -> None:
    behind: list[TracebackException | None] = [taken]
    while behind:
        each = behind.pop()
        if each is not None:
            for frame in each.stack:
                frame.colno = frame.end_colno = None
            behind += [each.__cause__, each.__context__, *(each.exceptions or ())]


def _alone(stack: StackSummary, name: str) -> list[str]:
    last = f"{name}: its message, causes and parts are left out, as there are more than {_MAX_EXCEPTIONS}.\n"
    return ["Traceback (most recent call last):\n", *stack.format(), last]


def _shown(traceback: TracebackType | None) -> TracebackType | None:
    """Returns: The innermost part, without the frames above the actor's function.

    It is bounded, as finding the lines of a deep one takes milliseconds.
    """
    while traceback is not None and traceback.tb_next is not None:
        if not traceback.tb_frame.f_code.co_filename.startswith(_CALLERS):
            break
        traceback = traceback.tb_next
    ahead = traceback
    for _ in range(_MAX_FRAMES):
        ahead = ahead and ahead.tb_next
    while traceback is not None and ahead is not None:
        traceback, ahead = traceback.tb_next, ahead.tb_next
    return traceback


def _is_large(error: BaseException) -> bool:
    """Returns: Whether an exception has so many causes and parts that taking them would cost the task much time."""
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
    """Returns: The text. Of a longer one: a quarter from its beginning, a mark, and its end, which says most."""
    if len(text) <= length:
        return text
    mark = f"\n[{len(text) - length} characters or more are left out here]\n"
    head = length // 4
    return text[:head] + mark + text[len(text) - (length - head - len(mark)) :]
