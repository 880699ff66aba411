"""Attaches collectors to running tasks, as somebody asks for them, and knows how far each attachment is."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ..collectors.base import Collector
from ..collectors.names import BUILTIN
from ..collectors.services import Services
from ..policy.selection import Choice, Selection
from ..spool.directory import Spool
from .attachment import Attachment
from .executions import Execution
from .hung_collectors import HungCollectors
from .run import Run
from .undiagnosed_run import Registering

#: The most attachments of a process that have not been published.
_MAX_OPEN = 20

#: The ids of the last attachments that were published; their questions are answered, or void, long before they go.
_MAX_REMEMBERED = 1000


class AttachRefusedError(Exception):
    """Nothing can be attached; the message says why."""


class Attachments:
    """The attachments of a process.

    Parameters:
      hung: The collectors of the process of which a step does not return.
      unsaved: The ids of the entries that are not complete.
      submit: Hands a complete attachment to the saver.
      register: See `Registering`.
    """

    def __init__(
        self,
        services: Services,
        spool: Spool,
        selection: Selection,
        hung: HungCollectors,
        unsaved: set[uuid.UUID],
        submit: Callable[[Attachment], None],
        register: Registering,
    ) -> None:
        self._services = services
        self._spool = spool
        self._selection = selection
        self._hung = hung
        self._unsaved = unsaved
        self._submit = submit
        self._register = register
        self._open: dict[uuid.UUID, Attachment] = {}
        self._published: deque[uuid.UUID] = deque(maxlen=_MAX_REMEMBERED)

    def find(self, attachment_id: uuid.UUID) -> Attachment | None:
        """Returns: An attachment that was made and is not published."""
        return self._open.get(attachment_id)

    def is_published(self, attachment_id: uuid.UUID) -> bool:
        """Returns: Whether its artifacts are in the store, or lost."""
        return attachment_id in tuple(self._published)  # The publisher's thread changes it.

    def settled(self, entry_id: uuid.UUID) -> None:
        """Notes that an entry was published. Runs on the publisher's thread."""
        if self._open.pop(entry_id, None) is not None:
            self._published.append(entry_id)

    def forget_lost(self, nothing_waits: Callable[[], bool]) -> None:
        """Forgets the attachments whose entries were lost, if nothing waits to be published any more.

        It looks in the opposite order of an entry's way, so that one that goes on meanwhile is not taken for lost.
        """
        gone = [attachment_id for attachment_id in tuple(self._open) if attachment_id not in self._unsaved]
        if gone and nothing_waits():
            for attachment_id in gone:
                self.settled(attachment_id)

    def begin(
        self, attachment_id: uuid.UUID, execution: Execution, request: Mapping[str, Mapping[str, Any]], for_s: float
    ) -> Attachment:
        """Attaches collectors to a task that is executed; they begin on another thread, at once.

        Raises:
          AttachRefusedError: When nothing can be attached.
        """
        if len(self._open) >= _MAX_OPEN:
            raise AttachRefusedError(f"The worker process has {_MAX_OPEN} attachments already; wait until one ends.")
        choice = _late(self._selection.attached(request))
        if not choice.collectors:
            raise AttachRefusedError(" ".join(dict.fromkeys(choice.denied.values())) or "Nothing can be attached.")
        run = self._run_of(execution)
        attachment = Attachment(self._spool, self._hung, run, attachment_id, choice, for_s, self._submit)
        self._unsaved.add(attachment_id)
        self._open[attachment_id] = attachment
        attachment.open()
        self._services.ticker.call_soon(attachment.begin)
        return attachment

    def _run_of(self, execution: Execution) -> Run:
        run = execution.run if execution.run is not None else self._register(execution)
        if run is None or run.ended is not None:
            raise AttachRefusedError("The task has ended.")
        if not run.is_executing:
            raise AttachRefusedError("The collectors of the task are just being started; ask again in a moment.")
        return run


def _late(choice: Choice) -> Choice:
    """Returns: The choice, in which collectors that cannot begin in the middle of a run are denied."""
    denied: dict[Collector, str] = {
        collector: f"{collector.name} cannot begin in the middle of a run."
        for collector in choice.collectors
        if collector.name not in BUILTIN
    }
    if not denied:
        return choice
    late = tuple(collector for collector in choice.collectors if collector not in denied)
    return replace(choice, collectors=late, denied={**choice.denied, **denied})
