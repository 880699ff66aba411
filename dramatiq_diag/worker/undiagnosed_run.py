"""The run of a task that nothing was selected for, made in its middle for what is attached to it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..collectors.services import Services
from ..policy.keep_policy import KeepPolicy
from ..policy.selection import NOTHING
from ..spool.directory import Spool
from ..spool.schema import moment, start_record
from .executions import Execution
from .hung_collectors import HungCollectors
from .run import Run
from .run_measures import queue_wait_ms

if TYPE_CHECKING:
    from dramatiq import Actor


class UndiagnosedRun(Run):
    """A run without artifacts of its own, of a task whose function was called before. Made on any thread.

    Parameters:
      hung: The collectors of the process of which a step does not return.
      execution: The task.
      actor: Its actor.
    """

    __slots__ = ()

    def __init__(
        self,
        services: Services,
        spool: Spool,
        keep_policy: KeepPolicy,
        hung: HungCollectors,
        execution: Execution,
        actor: Actor[..., Any],
    ) -> None:
        super().__init__(services, spool, keep_policy, hung, execution.message, actor, NOTHING)
        self.thread_id = execution.thread_id
        thread = next((thread for thread in threading.enumerate() if thread.ident == self.thread_id), None)
        if thread is not None:
            self.native_id, self.thread_name = thread.native_id or 0, thread.name
        self.started_at_s, self.started = execution.since
        self.made = self.started
        self.is_executing = True
        self.queue_wait_ms = queue_wait_ms(execution.message, self.started_at_s)
        self._start = start_record(self.identity, self.started_at_s, ())

    def open(self) -> None:
        """Writes the first record: from now on it is salvaged if the process dies."""
        self.write_start()
        self.entry.append({"called": {"started_at": moment(self.started_at_s), "collection_ms": 0.0}})


#: Makes and registers the run of a task that nothing was selected for; None where the task has just ended.
Registering = Callable[[Execution], Run | None]
