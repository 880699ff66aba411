"""Lists the tasks that the process executes now, diagnosed or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..documents.fields import timestamp
from ..policy.propagation import task_id_of
from ..spool.schema import MAX_ID_LENGTH
from ..store.columns import NAME_LENGTH
from ..store.values import clean_text, task_key
from ..store.workers import MAX_REPORTED, ExecutedTask

if TYPE_CHECKING:
    from dramatiq import Message

    from ..collectors.services import Since
    from .run import Run


@dataclass(frozen=True, kw_only=True)
class Execution:
    """A task that a thread executes."""

    thread_id: int
    message: Message[Any]
    since: Since
    age_s: float
    "Seconds from then to this look."
    run: Run | None
    "None for a task that is not diagnosed."

    @property
    def reported(self) -> ExecutedTask:
        """What the process says of it."""
        task_id = task_id_of(self.message)
        return {
            "task_key": task_key(task_id),
            "task_id": clean_text(task_id, MAX_ID_LENGTH),
            "run_id": None if self.run is None else str(self.run.run_id),
            "actor_name": clean_text(self.message.actor_name, NAME_LENGTH),
            "queue_name": clean_text(self.message.queue_name, NAME_LENGTH),
            "started_at": timestamp(datetime.fromtimestamp(self.since[0], UTC)),
            "age_s": round(self.age_s, 3),
        }


class Executions:
    """The tasks that the process executes. Any thread may ask.

    Parameters:
      messages: Thread id -> the message that is being processed on it, and since when.
      runs: Thread id -> the diagnosed run on it.
      clock: See `Services.clock`.
    """

    def __init__(
        self, messages: Mapping[int, tuple[Message[Any], Since]], runs: Mapping[int, Run], clock: Callable[[], float]
    ) -> None:
        self._messages = messages
        self._runs = runs
        self._clock = clock

    def now(self) -> list[Execution]:
        """Returns: The tasks, the one that began first at the front."""
        found = []
        for thread_id, (message, since) in tuple(self._messages.items()):
            run = self._runs.get(thread_id)
            # A run that ends now may still stand there, while its thread has the next message.
            run = run if run is not None and run.task_id == task_id_of(message) else None
            age_s = self._clock() - since[1]
            found.append(Execution(thread_id=thread_id, message=message, since=since, age_s=age_s, run=run))
        return sorted(found, key=lambda execution: execution.since[1])

    def of(self, task_id: str) -> Execution | None:
        """Returns: The execution of a task; of several the one that began last."""
        key = task_key(task_id)
        return next((found for found in reversed(self.now()) if task_key(task_id_of(found.message)) == key), None)

    def reported(self) -> list[ExecutedTask]:
        """Returns: What the process says of its tasks; the oldest ones, where there are many."""
        return [execution.reported for execution in self.now()[:MAX_REPORTED]]
