"""Writes stacks that nobody asked for beside a run: into its task log, or else into an artifact of their own."""

from __future__ import annotations

from functools import partial

from ..collectors.base import Collector, PlaceholderCollector
from ..spool.schema import declaration
from .run import Run

#: The most bytes of such texts in one run; a text has at most 64 KiB.
MAX_BYTES = 2 * 1024**2


class StuckStacks(Collector):
    """The stacks of a run that collects no log. It cannot be chosen by name."""

    name = "stuck-stacks"
    artifact_name = "stuck_stacks"
    filename = "stacks.txt"
    media_type = "text/plain"


class StackLog:
    """The place for such texts of one run. One thread uses it.

    Parameters:
      run: The run.
      max_bytes: The most bytes of texts.
    """

    def __init__(self, run: Run, *, max_bytes: int = MAX_BYTES) -> None:
        self._run = run
        self._bytes_left = max_bytes
        self._collector: Collector | None = None

    def write(self, text: str) -> None:
        """Writes a text, unless the texts of the run are too long together.

        If the run has ended, the text is written when its entry is completed; it is lost where that is done.
        """
        if self._run.ended is None:
            self._write(text)
        else:
            self._run.before_save.append(partial(self._write, text))

    def _write(self, text: str) -> None:
        size_bytes = len(text.encode("utf-8", "replace"))
        # If the run ends just now, the text comes behind the end of its entry, or is lost; neither harms.
        if self._run.entry.is_declined or size_bytes > self._bytes_left:
            return
        self._bytes_left -= size_bytes
        if self._collector is None:
            self._collector = self._task_log() or self._own_artifact()
        self._run.append_text(self._collector, text)

    def _task_log(self) -> Collector | None:
        """Returns: The collector of the log of the task, if it records."""
        recording = self._run.recordings.collectors()
        return next((found for found in recording if found.artifact_name == "task_logs"), None)

    def _own_artifact(self) -> Collector:
        collector = PlaceholderCollector(StuckStacks)
        self._run.entry.append({"declared": declaration(collector)})
        return collector
