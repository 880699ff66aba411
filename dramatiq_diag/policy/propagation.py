"""What is asked for besides the settings, and how it rides along with messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from uuid import UUID

from dramatiq import Message
from dramatiq.broker import MessageProxy
from dramatiq.logging import get_logger

if TYPE_CHECKING:
    from .options import DiagnosticsRequest

#: The option of messages and actors: names of collectors, with their options where there are any.
OPTION = "diagnostics"

#: The options of actors that replace the rules and the triggers of the settings.
KEEP_IF_OPTION = "diagnostics_keep_if"
TRIGGERS_OPTION = "diagnostics_triggers"

#: The option of actors that says how many of their tasks are diagnosed, from 0 to 1.
SAMPLE_RATE_OPTION = "diagnostics_sample_rate"

#: The actor that is never diagnosed itself.
CLEANUP_ACTOR = "dramatiq_diag.cleanup_orphans"

#: Options of messages alone: the run that sent it, how far it is from whoever asked, and the task that all began with.
_PARENT, _DEPTH, _ROOT = "diagnostics_parent", "diagnostics_depth", "diagnostics_root"

#: A longer id of a task is not passed on, but its digest, in characters.
_MAX_ROOT_LENGTH = 1000
#: As many characters as a run's id has in any of its spellings.
_MAX_RUN_ID_LENGTH = 45
#: No setting passes anything on further than this.
_MAX_DEPTH = 100

_logger = get_logger(__name__)
_warned: set[str] = set()


# Not frozen: that takes eight times as long to make, and a share of 1 % has one made for each of the other 99.
@dataclass(slots=True, eq=False)
class SendingTask:
    """The task that is being executed, as far as what it sends is to know of it."""

    message: Message[Any]
    tells_root: bool
    "Whether what it sends is to know the task that all began with; only shares depend on it."
    run_id: UUID | None = None
    "Its run; None while it is not diagnosed."
    request: DiagnosticsRequest | None = None
    "What was asked for and is passed on; None where nobody asked, or too far away."
    depth: int = 0
    "How many tasks are between it and whoever asked."


# Both hold for a thread, or for a coroutine and what it starts. The sender stays until the message is acknowledged:
# Dramatiq sends what follows a task (retries, pipelines, callbacks) when our hooks for it are already through.
_sender: ContextVar[SendingTask | None] = ContextVar("dramatiq_diag.sender", default=None)
_asked: ContextVar[tuple[str, ...] | None] = ContextVar("dramatiq_diag.asked", default=None)

set_sending_task = _sender.set


@contextmanager
def asking_for(names: Sequence[str]) -> Iterator[None]:
    """What is enqueued inside carries these names as its option `diagnostics`, unless it has one of its own."""
    token = _asked.set(tuple(names))
    try:
        yield
    finally:
        _asked.reset(token)


def prepare(message: Message[Any]) -> None:
    """Gives a message that is about to be enqueued what it is to carry."""
    asked, sender = _asked.get(), _sender.get()
    if (asked is None and sender is None) or message.actor_name == CLEANUP_ACTOR:
        return
    options = message.options
    if asked is not None:
        options.setdefault(OPTION, list(asked))
    if sender is None or sender.message.message_id == message.message_id:  # A retry is what it was.
        return
    if sender.tells_root:
        options.setdefault(_ROOT, root_task_id(sender.message))
    if sender.run_id is not None:
        _pass_on(sender, options)


def _pass_on(sender: SendingTask, options: dict[str, Any]) -> None:
    """Names the run that sends. A copy of what was passed on is passed on anew: it would go on for ever otherwise."""
    options[_PARENT] = str(sender.run_id)
    if OPTION in options and _DEPTH not in options:
        return
    if sender.request is not None:
        from .options import request_value  # Nothing is passed on in a process that executes no tasks.

        options[OPTION] = request_value(sender.request)
        options[_DEPTH] = sender.depth + 1
    else:
        options.pop(OPTION, None)
        options.pop(_DEPTH, None)


def parent_run_id(options: dict[str, Any]) -> UUID | None:
    """Returns: The run that sent a message; None where it says nothing, or nothing that can be one."""
    if _PARENT not in options:
        return None
    found = options[_PARENT]
    if isinstance(found, str) and len(found) <= _MAX_RUN_ID_LENGTH:
        with suppress(ValueError):
            return UUID(found)
    _warn_once(_PARENT)
    return None


def depth_of(options: dict[str, Any]) -> int:
    """Returns: How many tasks are between a message and the request; too many where what it says cannot be."""
    found = options.get(_DEPTH, 0)
    if isinstance(found, int) and not isinstance(found, bool) and 0 <= found <= _MAX_DEPTH:
        return found
    _warn_once(_DEPTH)
    return _MAX_DEPTH


def task_id_of(message: Message[Any] | MessageProxy) -> str:
    """Returns: The id of a message. That is a text, but for what other programs have sent."""
    found: Any = message.message_id
    return found if isinstance(found, str) else str(found)


def root_task_id(message: Message[Any] | MessageProxy) -> str:
    """Returns: The id of the task that all began with: the same for its retries, and for what it sent."""
    if _ROOT in message.options:
        found = message.options[_ROOT]
        if isinstance(found, str) and len(found) <= _MAX_ROOT_LENGTH:
            return found
        _warn_once(_ROOT)
    own = task_id_of(message)
    return own if len(own) <= _MAX_ROOT_LENGTH else sha256(own.encode("utf-8", "surrogatepass")).hexdigest()


def _warn_once(option: str) -> None:
    """Says that an option of a message is ignored: whoever enqueues a message decides what is in it."""
    if option not in _warned:
        _warned.add(option)
        _logger.warning("The option %s of a message is not one of ours and is ignored; later ones silently.", option)
