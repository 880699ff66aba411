"""Renders reports for many callers: a few at a time, each of them once, and none after the server has stopped."""

from __future__ import annotations

import copy
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import BinaryIO

from dramatiq.logging import get_logger

from ..errors import DiagnosticsError, StoreError
from ..store.models import Artifact
from .cache import ArtifactFiles, blob_name_of, open_at_once, open_rendered, render_to_cache
from .errors import RenderingInProgress, ReportError, TooManyRenderingsError
from .formats import Format
from .process import RenderProcess

#: Reports that are rendered at a time, and reports that are rendered or wait.
MAX_RUNNING = 2
MAX_JOBS = 32

#: Callers that wait at a time. A server has twice as many threads, so it still answers.
MAX_WAITING = 4

#: How long a failure, and a report that could not be kept, are remembered, in seconds.
REMEMBERED_S = 60.0

_CLOSED = "The report was not made, because the server stops."

_logger = get_logger(__name__)


#: The format as a file where it could not be kept, None where it is kept, or the error.
_Outcome = BinaryIO | DiagnosticsError | None


@dataclass(kw_only=True, eq=False)
class _Job:
    """One rendering."""

    artifact: Artifact
    wanted: Format
    process: RenderProcess
    asked_at_s: float
    begun_at_s: float | None = None
    "None while it waits for others."
    forget_at_s: float | None = None
    "None until it has ended."
    future: Future[_Outcome] = field(default_factory=Future)
    lock: threading.Lock = field(default_factory=threading.Lock)
    "Held while the file is read or closed."

    def open_copy(self) -> BinaryIO | None:
        """Returns: A copy of a format that could not be kept; None for a kept one. Raises: The error of the job."""
        if self.future.cancelled():
            raise ReportError(_CLOSED)
        outcome = self.future.result()
        if outcome is None:
            return None
        if isinstance(outcome, DiagnosticsError):
            raise copy.copy(outcome)  # Several threads may raise it.
        with self.lock:
            if outcome.closed:
                raise ReportError(_CLOSED)
            file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it.
            outcome.seek(0)
            shutil.copyfileobj(outcome, file)
        file.seek(0)
        return file

    def close_file(self) -> None:
        """Closes the file of an ended job that has one."""
        outcome = None if self.future.cancelled() else self.future.result()
        if outcome is not None and not isinstance(outcome, DiagnosticsError):
            with self.lock:
                outcome.close()


class RenderQueue:
    """Renders formats in two threads. Callers that ask for the same format share one rendering.

    Parameters:
      files: The store.
      clock: Gives seconds that only grow.
      max_jobs: The most reports that are rendered or wait.
      make_process: Makes the process of one rendering.
    """

    def __init__(
        self,
        files: ArtifactFiles,
        clock: Callable[[], float] = time.monotonic,
        *,
        max_jobs: int = MAX_JOBS,
        make_process: Callable[[], RenderProcess] = RenderProcess,
    ) -> None:
        self._files = files
        self._clock = clock
        self._max_jobs = max_jobs
        self._make_process = make_process
        self._lock = threading.Lock()
        self._jobs: dict[tuple[str, str], _Job] = {}
        "Blob name and format name -> its job."
        self._executor = ThreadPoolExecutor(MAX_RUNNING, "dramatiq_diag.report")
        self._closed = False
        self._free_waits = threading.BoundedSemaphore(MAX_WAITING)

    def open(self, artifact: Artifact, wanted: Format, wait_s: float) -> BinaryIO:
        """Opens a format: at once if it is stored or kept, otherwise when it is rendered.

        Parameters:
          artifact: A downloadable artifact.
          wanted: One of its formats.
          wait_s: How long to wait for the rendering, in seconds. It is not waited for where too many callers wait.

        Raises:
          RenderingInProgress: When it is not ready by then. The rendering continues.
          BlobMissingError: When the blob is gone, or is removed meanwhile.
          ReportError: When it cannot be rendered, or failed within the last minute, or too many reports wait.
          NotInstalledError: When the package that renders it is missing.
        """
        file = open_at_once(self._files, artifact, wanted)
        if file is not None:
            return file
        job = self._join(artifact, wanted)
        self._wait(job.future, wait_s)
        if not job.future.done():
            raise self._progress(job)
        return job.open_copy() or open_rendered(self._files, artifact, wanted)

    def close(self) -> None:
        """Kills the running processes and cancels the waiting jobs; their callers are told that the server stops."""
        with self._lock:
            self._closed = True
            jobs = [*self._jobs.values()]
            self._jobs.clear()
        for job in jobs:
            job.process.stop()
        self._executor.shutdown(cancel_futures=True)
        for job in jobs:
            job.close_file()

    def _join(self, artifact: Artifact, wanted: Format) -> _Job:
        """Returns: The job that renders the format; a new one if there is none."""
        key = (blob_name_of(artifact), wanted.name)
        with self._lock:
            if self._closed:
                raise ReportError(_CLOSED)
            now_s = self._clock()
            for old_key, old in [*self._jobs.items()]:
                if old.forget_at_s is not None and old.forget_at_s <= now_s:
                    self._jobs.pop(old_key).close_file()
            if key not in self._jobs:
                ahead = sum(not job.future.done() for job in self._jobs.values())
                if ahead >= self._max_jobs:
                    raise TooManyRenderingsError
                job = _Job(artifact=artifact, wanted=wanted, process=self._make_process(), asked_at_s=now_s)
                if ahead < MAX_RUNNING:
                    job.begun_at_s = now_s
                try:
                    job.future = self._executor.submit(self._work, key, job)
                except RuntimeError as error:  # The system gives no more threads.
                    raise ReportError(f"The report could not be begun: {error}.") from error
                self._jobs[key] = job
            return self._jobs[key]

    def _wait(self, future: Future[_Outcome], wait_s: float) -> None:
        if future.done() or not self._free_waits.acquire(blocking=False):
            return
        try:
            with suppress(TimeoutError, CancelledError):
                future.result(wait_s)
        finally:
            self._free_waits.release()

    def _progress(self, job: _Job) -> RenderingInProgress:
        begun_at_s = job.begun_at_s
        elapsed_s = self._clock() - (job.asked_at_s if begun_at_s is None else begun_at_s)
        return RenderingInProgress(elapsed_s=elapsed_s, limit_s=job.process.timeout_s, waiting=begun_at_s is None)

    def _work(self, key: tuple[str, str], job: _Job) -> _Outcome:
        """Renders; runs in a thread of the executor."""
        if self._interpreter_exits():
            return ReportError(_CLOSED)
        if job.begun_at_s is None:
            job.begun_at_s = self._clock()
        outcome: _Outcome
        try:
            outcome = render_to_cache(self._files, job.artifact, job.wanted, job.process)
        except DiagnosticsError as error:
            outcome = error.with_traceback(None)  # A traceback would keep everything alive that it refers to.
        except Exception as error:
            _logger.exception("The report %r of artifact %s failed.", job.wanted.name, job.artifact.artifact_id)
            outcome = ReportError(f"The report could not be made ({type(error).__name__}); the log has the cause.")
        with self._lock:
            job.forget_at_s = self._clock() + REMEMBERED_S
            if outcome is None or isinstance(outcome, StoreError):
                self._jobs.pop(key, None)  # A kept format is opened from the cache; a store may be back in a moment.
        return outcome

    def _interpreter_exits(self) -> bool:
        """Returns: True when the interpreter waits for this executor, which would render all that waits; else False."""
        try:
            self._executor.submit(int)
        except RuntimeError:
            return True
        return False
