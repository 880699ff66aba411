"""Begins recordings in the middle of a run, on a thread that is not the task's."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..collectors.base import Collector, Recording, RunContext
from ..errors import GUARDED
from .recordings import Recordings


class LateRecordings:
    """Begins each collector once. The run may end at any moment, and waits for no start.

    Parameters:
      recordings: Gets the recordings that began; it stops and saves them.
      run: The run as the recordings see it.
    """

    def __init__(self, recordings: Recordings, run: RunContext) -> None:
        self._recordings = recordings
        self._run = run
        self.begun: dict[str, bool] = {}
        "Name of a collector -> whether its start has ended, with or without an error."
        self._lock = threading.Lock()
        "Never held during a collector's start, which may take long: the task's thread takes it in `end`."
        self.is_ended = False

    def end(self) -> dict[str, bool]:
        """Begins nothing from now on; may be called again. Returns: What had begun, as `begun` has it."""
        with self._lock:
            self.is_ended = True
            return dict(self.begun)

    def unless_ended(self, step: Callable[[], None]) -> None:
        """Takes a short step unless `end` was called; `end` waits for it."""
        with self._lock:
            if not self.is_ended:
                step()

    def begin(self, collector: Collector) -> None:
        """Starts a collector. If the run ends during the start, the recording is stopped and leaves nothing."""
        with self._lock:
            if self.is_ended or collector.name in self.begun:
                return
            self.begun[collector.name] = False
        recording: Recording | None = None
        failure: BaseException | None = None
        try:
            recording = self._recordings.record(self._run, collector)
            self._start(collector, recording)
        except GUARDED as error:
            failure = error
        with self._lock:
            self.begun[collector.name] = True
            if not self.is_ended and failure is not None:
                self._recordings.not_started(collector, failure)
            elif not self.is_ended and recording is not None:
                self._recordings.join(collector, recording)
                return
        if recording is not None:
            self._take_back(collector, recording)

    def _start(self, collector: Collector, recording: Recording) -> None:
        self._recordings.call(collector, recording, recording.start)
        if recording.enter is not None:
            raised: Exception | None = None
            try:
                recording.enter()
            except Exception as error:  # noqa: BLE001 - the recording decides.
                raised = error
            recording.entered(raised)

    def _take_back(self, collector: Collector, recording: Recording) -> None:
        """Stops a recording that started in part, or too late, and removes its files."""
        try:
            self._recordings.call(collector, recording, recording.stop)
        finally:
            self._recordings.call(collector, recording, recording.discard)
            self._recordings.remove_files(collector)
