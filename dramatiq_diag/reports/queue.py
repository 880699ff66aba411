"""RenderQueue that many may ask for at once: each is made by one process, and a few at a time."""

from __future__ import annotations

import copy
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import BinaryIO

from dramatiq.logging import get_logger

from ..errors import DiagnosticsError, StoreError
from ..store.blobs.base import BlobStore
from ..store.models import Artifact
from . import process as rendering
from .cache import blob_name_of, open_at_once, open_cached, render_to_cache
from .errors import ReportError, TooManyRenderingsError
from .formats import Form

#: RenderQueue that run at a time, and those that run or wait.
MAX_RUNNING = 2
MAX_JOBS = 32

#: Callers that wait at a time. A server has twice as many threads, so that it goes on answering.
MAX_WAITING = 4

#: How long a failure is remembered, and a report that could not be kept, in seconds.
REMEMBERED_S = 60.0

_CLOSED = "The report was not made, because the server stops."

_logger = get_logger(__name__)


class RenderingInProgress(DiagnosticsError):  # noqa: N818 - nothing is wrong.
    """The report is being rendered; ask again in a second."""

    def __init__(self, *, elapsed_s: float, limit_s: float, waiting: bool) -> None:
        super().__init__()
        self.elapsed_s = elapsed_s
        "Seconds since it was begun, or while it waits, since it was asked for."
        self.limit_s = limit_s
        "Seconds that it may take."
        self.waiting = waiting
        "Whether it waits for others to end."


class RenderQueue:
    """Renders forms in threads that end with their work; whoever asks for the same form meanwhile shares it.

    Parameters:
      blobs: Where blobs are, and where forms are kept.
      clock: Gives seconds that only grow.
    """

    def __init__(self, blobs: BlobStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._blobs = blobs
        self._clock = clock
        self._lock = threading.Lock()
        self._jobs: dict[tuple[str, str], _Job] = {}
        self._line: deque[_Job] = deque()
        self._running: list[_Job] = []
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._free_waits = threading.BoundedSemaphore(MAX_WAITING)

    def open(self, artifact: Artifact, form: Form, wait_s: float) -> BinaryIO:
        """Opens a form: at once where it is stored or kept, and otherwise when it is rendered.

        Parameters:
          artifact: One that is live.
          form: One of its forms.
          wait_s: How long to wait for it, in seconds; not at all where too many wait already.

        Raises:
          RenderingInProgress: When it is not ready by then; it goes on.
          BlobMissingError: When its file is gone, or was removed meanwhile.
          ReportError: When it cannot be rendered, or could not lately, or too many wait.
          NotInstalledError: When the package that renders it is missing.
        """
        file = open_at_once(self._blobs, artifact, form)
        if file is not None:
            return file
        job = self._join(artifact, form)
        if not self._wait(job, wait_s):
            raise job.progress(self._clock())
        return job.open_copy() or open_cached(self._blobs, artifact, form)

    def close(self) -> None:
        """Kills what runs and lets go of what waits; whoever waits for either is told."""
        with self._lock:
            self._closed = True
            for job in self._line:
                job.end(error=ReportError(_CLOSED))
            self._line.clear()
            for job in self._running:
                job.rendering.stop()
        for thread in self._threads:
            thread.join()
        for job in self._jobs.values():
            job.forget()
        self._jobs.clear()

    def _wait(self, job: _Job, wait_s: float) -> bool:
        """Returns: Whether the job has ended."""
        if job.ended.is_set() or not self._free_waits.acquire(blocking=False):
            return job.ended.is_set()
        try:
            return job.ended.wait(wait_s)
        finally:
            self._free_waits.release()

    def _join(self, artifact: Artifact, form: Form) -> _Job:
        """Returns: The job that renders the form, a new one where there is none."""
        key = (blob_name_of(artifact), form.name)
        with self._lock:
            if self._closed:
                raise ReportError(_CLOSED)
            self._forget_old()
            job = self._jobs.get(key)
            if job is None:
                if len(self._line) + len(self._running) >= MAX_JOBS:
                    raise TooManyRenderingsError
                job = self._jobs[key] = _Job(key, artifact, form, self._clock())
                self._line.append(job)
                self._start_next()
            return job

    def _forget_old(self) -> None:
        now_s = self._clock()
        for key, job in [*self._jobs.items()]:
            if job.forget_at_s is not None and job.forget_at_s <= now_s:
                del self._jobs[key]
                job.forget()

    def _start_next(self) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        while self._line and len(self._running) < MAX_RUNNING:
            job = self._line.popleft()
            job.begun_at_s = self._clock()
            thread = threading.Thread(target=self._work, args=(job,), name="dramatiq_diag.report", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # The system gives no more threads.
                del self._jobs[job.key]
                job.end(error=ReportError(f"The report could not be begun: {error}."))
                continue
            self._running.append(job)
            self._threads.append(thread)

    def _work(self, job: _Job) -> None:
        """What the thread of a job does."""
        file: BinaryIO | None = None
        error: DiagnosticsError | None = None
        try:
            file = render_to_cache(self._blobs, job.artifact, job.form, job.rendering.render)
        except DiagnosticsError as failure:
            error = failure
        except Exception as failure:
            _logger.exception("The report %r of artifact %s failed.", job.form.name, job.artifact.artifact_id)
            error = ReportError(f"The report could not be made ({type(failure).__name__}); the log has the cause.")
        with self._lock:
            self._running.remove(job)
            if (file is None and error is None) or isinstance(error, StoreError):
                del self._jobs[job.key]  # What is kept is opened from now on; a store may be back in a moment.
            job.forget_at_s = self._clock() + REMEMBERED_S
            job.end(file, error)
            self._start_next()


class _Job:
    """One rendering: what it is of, how far it is, and how it ended."""

    def __init__(self, key: tuple[str, str], artifact: Artifact, form: Form, asked_at_s: float) -> None:
        self.key = key
        self.artifact = artifact
        self.form = form
        self.rendering = rendering.RenderProcess()
        self.ended = threading.Event()
        self.asked_at_s = asked_at_s
        self.begun_at_s: float | None = None
        "None while it waits."
        self.forget_at_s: float | None = None
        "None until it has ended."
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None
        self._error: DiagnosticsError | None = None

    def progress(self, now_s: float) -> RenderingInProgress:
        """Returns: What says how far it is."""
        begun_at_s = self.begun_at_s
        since_s = self.asked_at_s if begun_at_s is None else begun_at_s
        return RenderingInProgress(elapsed_s=now_s - since_s, limit_s=rendering.TIMEOUT_S, waiting=begun_at_s is None)

    def end(self, file: BinaryIO | None = None, error: DiagnosticsError | None = None) -> None:
        """Lets everybody go on: with the file, the error, or neither where the form is kept."""
        self._file = file
        self._error = None if error is None else error.with_traceback(None)  # Which would hold on to what it names.
        self.ended.set()

    def open_copy(self) -> BinaryIO | None:
        """Returns: A copy of a form that could not be kept, or None for one that is. Raises: What it ended with."""
        if self._error is not None:
            raise copy.copy(self._error)  # Several threads may raise it.
        with self._lock:
            if self._file is None:
                return None
            if self._file.closed:
                raise ReportError(_CLOSED)
            file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it.
            self._file.seek(0)
            shutil.copyfileobj(self._file, file)
        file.seek(0)
        return file

    def forget(self) -> None:
        """Closes its file."""
        with self._lock:
            if self._file is not None:
                self._file.close()
