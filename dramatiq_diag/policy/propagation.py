"""Carries requests for diagnostics, and the origin of a task, in the options of messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from uuid import UUID

from dramatiq import Message
from dramatiq.broker import MessageProxy

if TYPE_CHECKING:
    from ..runtime.task_log import Warn
    from .options import DiagnosticsRequest

#: The option of messages and actors: names of collectors, with options if there are any.
OPTION = "diagnostics"

#: The options of actors that replace the rules and the triggers of the settings.
KEEP_IF_OPTION = "diagnostics_keep_if"
TRIGGERS_OPTION = "diagnostics_triggers"

#: The option of actors for the share of their tasks that is diagnosed, from 0 to 1.
SAMPLE_RATE_OPTION = "diagnostics_sample_rate"

#: The option of messages in which a worker keeps the `eta` of a delayed one, in milliseconds.
DUE_OPTION = "diagnostics_due_ms"

#: The actor that is never diagnosed itself.
CLEANUP_ACTOR = "dramatiq_diag.cleanup_orphans"

#: The option in which an OpenTelemetry instrumentation puts all others of a message, one level deeper.
NESTED_OPTIONS = "options"

#: Options of messages alone: the run that sent it, the number of tasks since the request, and the root task.
_PARENT, _DEPTH, _ROOT = "diagnostics_parent", "diagnostics_depth", "diagnostics_root"

#: In characters. Instead of a longer task id its digest is passed on.
_MAX_ROOT_LENGTH = 1000
#: The longest spelling of a run id, in characters.
_MAX_RUN_ID_LENGTH = 45
#: The largest value of the setting `pass_on_depth`.
_MAX_DEPTH = 100


# Not frozen: that takes eight times as long to make, and at a sample rate of 1 % the other 99 % of tasks make one too.
@dataclass(slots=True, eq=False)
class SendingTask:
    """The task that is being executed, as the messages that it sends describe it."""

    message: Message[Any]
    options: MessageOptions | None
    "Returns the id of the root task, which its messages carry; None if they do not: only sampling needs it."
    run_id: UUID | None = None
    "Its run; None if it is not diagnosed."
    request: DiagnosticsRequest | None = None
    "The request that is passed on; None if there is none, or if it has been passed on too often."
    depth: int = 0
    "The number of tasks between it and the request."


# Both hold for a thread, or for a coroutine and the tasks that it starts. The sender stays until the message is
# acknowledged: Dramatiq sends retries, pipelines and callbacks when our hooks for the task have already returned.
_sender: ContextVar[SendingTask | None] = ContextVar("dramatiq_diag.sender", default=None)
_asked: ContextVar[tuple[str, ...] | None] = ContextVar("dramatiq_diag.asked", default=None)

set_sending_task = _sender.set


@contextmanager
def asking_for(names: Sequence[str]) -> Iterator[None]:
    """Messages that are enqueued inside get these names as their option `diagnostics`, unless they have the option."""
    token = _asked.set(tuple(names))
    try:
        yield
    finally:
        _asked.reset(token)


def prepare(message: Message[Any]) -> None:
    """Sets the options of a message that is about to be enqueued."""
    asked, sender = _asked.get(), _sender.get()
    if (asked is None and sender is None) or message.actor_name == CLEANUP_ACTOR:
        return
    options = message.options
    if asked is not None and find_request(options) is None:
        options[OPTION] = list(asked)
    if sender is None or sender.message.message_id == message.message_id:  # A retry keeps its options.
        return
    if sender.options is not None:
        options.setdefault(_ROOT, sender.options.root_task_id(sender.message))
    if sender.run_id is not None:
        _pass_on(sender, options)


def _pass_on(sender: SendingTask, options: dict[str, Any]) -> None:
    """Sets the sending run, and the request. A copied request is replaced: its depth would never grow otherwise."""
    options[_PARENT] = str(sender.run_id)
    if find_request(options) is not None and _DEPTH not in options:
        return
    if sender.request is not None:
        from .options import request_value  # Nothing is passed on in a process that executes no tasks.

        options[OPTION] = request_value(sender.request)
        options[_DEPTH] = sender.depth + 1
    else:
        options.pop(OPTION, None)
        options.pop(_DEPTH, None)


def find_request(options: Mapping[str, Any]) -> tuple[Any] | None:
    """Returns: The option `diagnostics` of a message in a tuple, as any value may be wrong; None without the option."""
    if OPTION in options:
        return (options[OPTION],)
    nested = options.get(NESTED_OPTIONS)
    return (nested[OPTION],) if isinstance(nested, dict) and OPTION in nested else None


def task_id_of(message: Message[Any] | MessageProxy) -> str:
    """Returns: The id of a message as a text; other programs may send other types."""
    found: Any = message.message_id
    return found if isinstance(found, str) else str(found)


class MessageOptions:
    """Reads the options that `prepare` sets. The sender of a message decides what is in them: others are ignored.

    Parameters:
      warn: Logs a warning for a task's thread, once for each option; see `TaskLog`.
    """

    def __init__(self, warn: Warn) -> None:
        self._log_warning = warn
        self._warned: set[str] = set()

    def parent_run_id(self, options: dict[str, Any]) -> UUID | None:
        """Returns: The run that sent a message; None if its options have none, or an invalid one."""
        if _PARENT not in options:
            return None
        found = options[_PARENT]
        if isinstance(found, str) and len(found) <= _MAX_RUN_ID_LENGTH:
            with suppress(ValueError):
                return UUID(found)
        self._warn(_PARENT)
        return None

    def depth(self, options: dict[str, Any]) -> int:
        """Returns: The number of tasks between a message and the request; the largest one if the option is invalid."""
        found = options.get(_DEPTH, 0)
        if isinstance(found, int) and not isinstance(found, bool) and 0 <= found <= _MAX_DEPTH:
            return found
        self._warn(_DEPTH)
        return _MAX_DEPTH

    def root_task_id(self, message: Message[Any] | MessageProxy) -> str:
        """Returns: The id of the root task: the same for its retries, and for all tasks that come from it."""
        if _ROOT in message.options:
            found = message.options[_ROOT]
            if isinstance(found, str) and len(found) <= _MAX_ROOT_LENGTH:
                return found
            self._warn(_ROOT)
        own = task_id_of(message)
        return own if len(own) <= _MAX_ROOT_LENGTH else sha256(own.encode("utf-8", "surrogatepass")).hexdigest()

    def _warn(self, option: str) -> None:
        if option not in self._warned:
            self._warned.add(option)
            text = "The option %s of a message is not one of ours and is ignored; later ones silently."
            self._log_warning(text, option)
