"""One thread that samples the stacks of all profiled runs of the process."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Coroutine
from types import CodeType, FrameType
from typing import Any

from dramatiq.logging import get_logger

from ..switching import SwitchInterval
from .stacks import OTHER, Stack, coroutine_stack, thread_stack

#: Distinct stacks that one profile may hold: with more, its lightest ones are folded.
MAX_STACKS = 10_000


class Profile:
    """The merged samples of one run.

    Parameters:
      thread_id: The thread that executes the run.
      anchor: The code that calls the actor's function.
      is_async: Whether the run is that of an async actor, which is sampled through its coroutine.
    """

    def __init__(self, thread_id: int, anchor: CodeType, *, is_async: bool) -> None:
        self.thread_id = thread_id
        self.anchor = anchor
        self.is_async = is_async
        self.coroutine: Coroutine[Any, Any, Any] | None = None
        "The coroutine of an async actor, once it is known."
        self.seconds: dict[Stack, float] = {}
        "Stack -> seconds."
        self.sample_count = 0
        self.last_s = time.perf_counter()

    def sample(self, now_s: float, frames: dict[int, FrameType], loop_thread_id: int | None) -> None:
        """Adds the time since the last sample to the present stack."""
        stack = self._stack(frames, loop_thread_id)
        if stack is None:
            self.last_s = now_s
        else:
            self.add(stack, now_s)

    def add(self, stack: Stack, now_s: float) -> None:
        """Adds the time since the last sample to a stack."""
        seconds = self.seconds
        if stack not in seconds and len(seconds) >= MAX_STACKS:
            self._fold()
        seconds[stack] = seconds.get(stack, 0.0) + now_s - self.last_s
        self.sample_count += 1
        self.last_s = now_s

    def _fold(self) -> None:
        """Makes room: the lightest half of the stacks keeps the upper half of its frames, with `OTHER` below."""
        while len(self.seconds) > MAX_STACKS * 3 // 4:
            lightest = sorted(self.seconds, key=self.seconds.__getitem__)[: MAX_STACKS // 2]
            for stack in lightest:
                spent_s = self.seconds.pop(stack)
                frames = len(stack) // 2 - (stack[-2] is OTHER)
                folded = (*stack[: frames // 2 * 2], OTHER, 0)
                self.seconds[folded] = self.seconds.get(folded, 0.0) + spent_s

    def _stack(self, frames: dict[int, FrameType], loop_thread_id: int | None) -> Stack | None:
        if not self.is_async:
            return thread_stack(frames.get(self.thread_id), self.anchor)
        if self.coroutine is None or loop_thread_id is None:
            return None
        return coroutine_stack(self.coroutine, frames.get(loop_thread_id))


class Sampler:
    """Samples every profile that was added, each at every turn; idle without one.

    Parameters:
      interval_s: Seconds between samples on average; each wait is drawn from half to one and a half of it, so that
        nothing periodic in a task hides from it.
      switch_interval: Kept short while it samples: a sample is taken when the running thread gives up the GIL.
    """

    def __init__(self, interval_s: float, switch_interval: SwitchInterval) -> None:
        self.logger = get_logger(__name__, type(self))
        self.interval_s = interval_s
        self.switch_interval = switch_interval
        self.loop_thread_id: int | None = None
        "The thread of the event loop, once there is one."
        self._profiles: frozenset[Profile] = frozenset()
        self._changed = threading.Condition(threading.Lock())
        self._thread: threading.Thread | None = None
        self._stopped = False

    def add(self, profile: Profile) -> None:
        """Begins to sample a profile."""
        with self._changed:
            self._profiles |= {profile}
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="dramatiq_diag.sampler", daemon=True)
                self._thread.start()
            elif len(self._profiles) == 1:
                self._changed.notify()

    def remove(self, profile: Profile) -> None:
        """Ends it."""
        with self._changed:
            self._profiles -= {profile}

    def stop(self) -> None:
        """Ends the thread and waits for it."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        uniform, low_s, high_s = random.Random().uniform, self.interval_s * 0.5, self.interval_s * 1.5  # noqa: S311
        while self._wait_for_profiles():
            try:
                with self.switch_interval.short():
                    while self._profiles and not self._stopped:
                        time.sleep(uniform(low_s, high_s))
                        self._sample()
            except Exception:
                self.logger.warning("A sample was lost.", exc_info=True)

    def _wait_for_profiles(self) -> bool:
        """Returns: Whether there is something to sample; False at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._profiles or self._stopped)
        return not self._stopped

    def _sample(self) -> None:
        # No thread is to run on meanwhile: a frame that is held past its function's return keeps its objects alive, has
        # them finalised on this thread, and has been seen to crash a Tracker that starts. This very frame is among
        # them: without the clearing, a cycle would hold them all.
        with self.switch_interval.whole():
            profiles = self._profiles
            frames = sys._current_frames()
            try:
                now_s = time.perf_counter()
                for profile in profiles:
                    profile.sample(now_s, frames, self.loop_thread_id)
            finally:
                frames.clear()
