"""`pyinstrument`: records where the time of a task goes, for pyinstrument's interactive HTML."""

from __future__ import annotations

import threading
import time
from collections.abc import Coroutine
from typing import Annotated, Any, Literal

from dramatiq.threading import is_gevent_active
from pydantic import Field

from ...errors import SkippedError, UnavailableError
from ...runtime.interrupts import forget_interrupts, watch_interrupts
from ...runtime.stacks import anchor_of, coroutine_function, root_of
from ...runtime.ticker import Timer
from ..base import Collector, CollectorSettings, Options, Recording, RunContext, checkpoint_name, import_extra
from ..event_loop import event_loop_thread
from ..names import CANNOT_JOIN
from ..services import Services
from .profiler import ProfilerRecording, tolerant
from .sampler import Profile, Sampler
from .session import SessionDict, SessionRecording, describe_thread, session_of
from .so_far import sum_up

#: Seconds until the first checkpoint, early enough for tasks that are killed early. The intervals double from there up
#: to the longest one.
FIRST_CHECKPOINT_S = 0.5
CHECKPOINT_INTERVAL_S = 5.0

#: The share of the time that checkpoints take at most: those of a profile with many stacks are rarer.
_CHECKPOINT_SHARE = 0.02


class PyinstrumentOptions(Options):
    """Options of `pyinstrument`; without one the setting holds."""

    engine: Literal["sampler", "profiler"] | None = None
    "`profiler` for pyinstrument's own, which sees each call, and makes the task take several times as long."
    interval: Annotated[float, Field(ge=0.0005, le=3600)] | None = None
    "Seconds between samples. Other runs that are profiled meanwhile are sampled as often."
    start_after: Annotated[float, Field(ge=0, le=86400)] | None = None
    "Seconds after which a run that still goes on is profiled; for the sampler alone."

    def resolved(self, settings: CollectorSettings) -> tuple[str, float, float]:
        """Returns: Engine, interval and start, with the settings where there is no option."""
        return (
            settings.pyinstrument_engine if self.engine is None else self.engine,
            settings.pyinstrument_interval if self.interval is None else self.interval,
            settings.pyinstrument_start_after if self.start_after is None else self.start_after,
        )


class PyinstrumentCollector(Collector):
    """`pyinstrument`: a time profile rooted at the actor's function.

    By default a thread of our own samples the stacks, and pyinstrument renders them. That adds nothing to the cost of a
    call, sees what an async actor awaits, and works beside memray. `pyinstrument_engine=profiler` uses pyinstrument's
    own profiler.
    """

    name = "pyinstrument"
    artifact_name = "pyinstrument_profile"
    filename = "pyinstrument.html"
    media_type = "text/html"
    stored_as = "pyinstrument.session.json"
    options_class = PyinstrumentOptions

    def __init__(self, settings: CollectorSettings) -> None:
        super().__init__(settings)
        pyinstrument = import_extra("pyinstrument")
        if is_gevent_active():
            raise UnavailableError(
                "Under gevent all greenlets share one thread, and a profile could not tell them apart."
            )
        self._profiler_class = tolerant(pyinstrument.Profiler)

    def record(self, run: RunContext) -> Recording:
        engine, interval_s, start_after_s = run.options(self).resolved(self.settings)
        if engine == "sampler":
            return _SamplerRecording(self, run, interval_s, 0.0 if run.is_executing else start_after_s)
        if start_after_s or run.is_executing:
            raise SkippedError(f"{CANNOT_JOIN}.")
        return ProfilerRecording(self._profiler_class(interval=interval_s), self, run)

    def open(self, services: Services) -> None:
        super().open(services)
        self.sampler = Sampler(services.switch_interval)
        # For the engine `profiler`, which any request may choose.
        watch_interrupts(services.profile_hook, services.messages)
        self.sampler.start()

    def close(self) -> None:
        self.sampler.stop()
        forget_interrupts(self.services.profile_hook)


class _SamplerRecording(SessionRecording):
    def __init__(
        self, collector: PyinstrumentCollector, run: RunContext, interval_s: float, start_after_s: float
    ) -> None:
        super().__init__(collector, run)
        self.sampler = collector.sampler
        self.thread = run.thread_name, run.thread_id
        self.profile = Profile(
            run.thread_id,
            anchor_of(run.actor),
            is_async=coroutine_function(run.actor) is not None,
            root=root_of(run.actor),
            interval_s=interval_s,
            called=lambda: run.started,
        )
        self.has_joined = False
        self.start_after_s = start_after_s
        self.late_s = run.elapsed_s if run.is_executing else self.start_after_s
        self.timer = Timer(self.start_after_s or FIRST_CHECKPOINT_S, self._tick)
        self.lock = threading.Lock()  # A tick may be under way when the run ends.
        self.stopped = False

    def start(self) -> None:
        if self.profile.is_async:
            self._follow_coroutine()
        if not self.start_after_s:
            self._join()
        self.collector.services.ticker.add(self.timer)

    def _join(self) -> None:
        self.has_joined = True
        self._start_clocks()
        self.sampler.add(self.profile)

    def _tick(self) -> None:
        """Starts the profile of a run that has lasted long enough. After that it writes checkpoints, for salvage."""
        with self.lock:
            if self.stopped:
                return
            if not self.has_joined:
                self._join()
                self.timer.cancel()
                self.timer = Timer(FIRST_CHECKPOINT_S, self._tick)
                if self.stopped:  # The run ended meanwhile; it does not wait for this lock.
                    self._leave()
                else:
                    self.collector.services.ticker.add(self.timer)
                return
            usual_s, began_s = min(self.timer.interval_s * 2, CHECKPOINT_INTERVAL_S), time.thread_time()
            self._stop_clocks()
            try:
                self._write(checkpoint_name(self.collector.artifact_name))
            except OSError as error:
                self.collector.services.warn_once("checkpoint", error, "A profile's checkpoint was not written.")
            finally:
                self.timer.interval_s = max(usual_s, (time.thread_time() - began_s) / _CHECKPOINT_SHARE)

    def _follow_coroutine(self) -> None:
        loop_thread = event_loop_thread()
        self.thread = loop_thread.name, loop_thread.ident or 0
        self.sampler.loop_thread_id = loop_thread.ident
        if self.run.is_executing:  # It has been handed over by now.
            self.profile.coroutine = self.run.coroutine
        else:
            self.collector.services.coroutines.on_next(loop_thread, self._found_coroutine)

    def _found_coroutine(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.profile.coroutine = coroutine

    def so_far(self) -> dict[str, Any] | None:
        if not self.has_joined:
            return None
        # As in `_session`: the sampler goes on meanwhile.
        codes = self.profile.codes
        stacks = list(self.profile.seconds.items())
        return {**sum_up(stacks, codes | self.profile.codes, self.profile.sample_count)}

    def stop(self) -> None:
        self.stopped = True
        self.timer.cancel()
        if self.profile.is_async:
            self.collector.services.coroutines.forget()
        self._leave()

    def end_early(self, reason: str) -> None:
        with self.lock:
            self.timer.cancel()
            self._leave()

    def _leave(self) -> None:
        if self.has_joined:
            self._stop_clocks()
            self.sampler.remove(self.profile)

    def save(self) -> None:
        with self.lock:
            self.profile.coroutine = None
            if not self.has_joined:
                raise SkippedError(f"The run ended before it had lasted {self.start_after_s:g} s.")
            super().save()

    def discard(self) -> None:
        with self.lock:  # A checkpoint may be being written.
            self.profile.coroutine = None

    def _session(self) -> SessionDict:
        # The sampler goes on while a checkpoint is written: it may add a sample, or drop codes.
        codes, timeline = self.profile.codes, self.profile.timeline
        stacks = list(self.profile.seconds.items() if timeline is None else timeline)
        late = f", from {self.late_s:.3g} s on" if self.late_s else ""
        return session_of(
            stacks,
            codes | self.profile.codes,
            in_order=timeline is not None,
            start_time=self.start_time,
            duration_s=self.duration_s,
            cpu_time_s=self.cpu_time_s,
            interval_s=self.profile.interval_s,
            sample_count=self.profile.sample_count,
            thread=describe_thread(*self.thread),
            root=self.root,
            target_description=f"Task {self.run.task_id}: {self.run.actor_name}{late}",
        )
