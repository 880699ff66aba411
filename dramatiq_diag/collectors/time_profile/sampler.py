"""Samples the stacks of all profiled runs of the process, on one thread."""

from __future__ import annotations

import math
import queue
import random
import threading
import time
from collections.abc import Callable, Coroutine
from types import CodeType
from typing import Any

from ...runtime.frames import Look
from ...runtime.loggers import get_logger
from ...runtime.stacks import OTHER, Codes, CoroutineStacks, Stack, ThreadStack
from ...runtime.switch_interval import SwitchInterval
from ...runtime.wakeup import wake_promptly

#: The most distinct stacks of one profile; beyond it the lightest ones are folded.
MAX_STACKS = 10_000

#: The most frames in the stacks of a timeline; beyond it only the sums are kept.
MAX_TIMELINE_FRAMES = 5000

#: The bounds of the switch interval while sampling, in seconds; within them it is a few times the duration of a sample.
#: The sampler waits that long for the GIL, and sees what the task does by then. An interval shorter than a sample would
#: make it wait twice: the thread that gave up the GIL asks for it again after that time.
_SWITCH_INTERVAL_S = (0.0001, 0.0005)
_SAMPLES_TO_SWITCH = 3


class Profile:
    """The merged samples of one run.

    Parameters:
      thread_id: The thread that executes the run.
      anchor: The code that calls the actor's function.
      is_async: Whether the run is that of an async actor, which is sampled through its coroutine.
      root: The code of the actor's function, if it has one.
      called: Gives the time at which the function was called, by `time.perf_counter`; earlier time is not charged.
    """

    def __init__(
        self,
        thread_id: int,
        anchor: CodeType,
        *,
        is_async: bool,
        root: CodeType | None = None,
        called: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.thread_id = thread_id
        self.anchor = anchor
        self.root = root
        self.is_async = is_async
        self.coroutine: Coroutine[Any, Any, Any] | None = None
        "The coroutine of an async actor, once it is known."
        self.interval_s: float | None = None
        "Seconds between samples on average; None for the sampler's own. The shortest of all profiles holds for all."
        self.codes: Codes = {}
        self.seconds: dict[Stack, float] = {}
        "Stack -> seconds."
        self.timeline: list[tuple[Stack, float]] | None = []
        "Stacks in their order, with seconds; None once the timeline is too long."
        self.sample_count = 0
        self.called = called
        self.last_s = time.perf_counter()
        self._timeline_frames = 0

    def ask(self, look: Look, loop_thread_id: int | None) -> ThreadStack | CoroutineStacks | None:
        """Returns: The stacks that can be read once the look is taken; None if there is nothing to read."""
        if not self.is_async:
            return ThreadStack(look, self.thread_id, self.anchor, self.root)
        if self.coroutine is None or loop_thread_id is None:
            return None
        return CoroutineStacks(look, self.coroutine, loop_thread_id)

    def sample(self, due_s: float, asked: ThreadStack | CoroutineStacks | None) -> None:
        """Charges the time since the last sample to the current stack. Without a stack it is not charged."""
        if due_s <= self.last_s:  # It was due before this profile began.
            return
        stacks = [] if asked is None else asked.read(self.codes)
        spent_s = max(due_s - max(self.last_s, self.called()), 0.0)
        self.last_s = due_s
        if stacks:
            self.sample_count += 1
            before = len(self.seconds)
            for stack in stacks:
                self.add(stack, spent_s / len(stacks))
            if len(self.seconds) < before:
                self._forget_codes()

    def add(self, stack: Stack, spent_s: float) -> None:
        """Adds seconds to a stack."""
        seconds = self.seconds
        if stack not in seconds and len(seconds) >= MAX_STACKS:
            self._fold()
        seconds[stack] = seconds.get(stack, 0.0) + spent_s
        if self.timeline is not None:
            self._add_to_timeline(self.timeline, stack, spent_s)

    def _add_to_timeline(self, timeline: list[tuple[Stack, float]], stack: Stack, spent_s: float) -> None:
        if timeline and timeline[-1][0] == stack:
            timeline[-1] = stack, timeline[-1][1] + spent_s
            return
        timeline.append((stack, spent_s))
        self._timeline_frames += len(stack) // 2
        if self._timeline_frames > MAX_TIMELINE_FRAMES:
            self.timeline = None

    def _fold(self) -> None:
        """Folds the lightest half of the stacks: each keeps its outer half, with `OTHER` for the rest."""
        while len(self.seconds) > MAX_STACKS * 3 // 4:
            lightest = sorted(self.seconds, key=self.seconds.__getitem__)[: MAX_STACKS // 2]
            for stack in lightest:
                spent_s = self.seconds.pop(stack)
                frames = len(stack) // 2 - (stack[-2] == OTHER)
                folded = (*stack[: frames // 2 * 2], OTHER, 0)
                self.seconds[folded] = self.seconds.get(folded, 0.0) + spent_s

    def _forget_codes(self) -> None:
        """Drops the code objects that are in no stack any more."""
        used = {key for stack in self.seconds for key in stack[::2]}
        self.codes = {key: code for key, code in self.codes.items() if key in used}


class Sampler:
    """Samples all its profiles at each turn; idle without profiles.

    The times of samples do not depend on the tasks, and each sample stands for the time up to when it was due. So a
    task that keeps the GIL delays a sample, but changes neither its weight nor the next one.

    Parameters:
      interval_s: Seconds between samples on average. Each is drawn from half to one and a half of it, so that periodic
        work of a task is seen as well.
      switch_interval: Kept short while it samples: a sample is taken when the running thread gives up the GIL.
    """

    def __init__(self, interval_s: float, switch_interval: SwitchInterval) -> None:
        self.logger = get_logger(__name__, type(self))
        self.interval_s = interval_s
        self.switch_interval = switch_interval
        self.loop_thread_id: int | None = None
        "The thread of the event loop, once there is one."
        self.profiles: frozenset[Profile] = frozenset()
        "The profiles that are sampled."
        self._shortest_s = interval_s
        "The interval of the profile that wants the most samples."
        # The threads of tasks add and remove profiles; see `runtime.interrupts`.
        self._lock = threading.Lock()
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._is_idle = False
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="dramatiq_diag.sampler", daemon=True)

    def start(self) -> None:
        """Starts the thread. Not for threads of tasks: `Thread.start` waits for an event, which has a condition."""
        self._thread.start()

    def add(self, profile: Profile) -> None:
        """Begins to sample a profile."""
        with self._lock:
            self._set_profiles(self.profiles | {profile})
        if self._is_idle:
            self._wakes.put(None)

    def remove(self, profile: Profile) -> None:
        """Ends the sampling of a profile; may be called again."""
        with self._lock:
            self._set_profiles(self.profiles - {profile})

    def _set_profiles(self, profiles: frozenset[Profile]) -> None:
        wanted = (self.interval_s if profile.interval_s is None else profile.interval_s for profile in profiles)
        self._shortest_s = min(wanted, default=self.interval_s)
        self.profiles = profiles

    def stop(self) -> None:
        """Ends the thread and waits for it."""
        self._stopped = True
        self._wakes.put(None)
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        wake_promptly()
        while self._wait_for_profiles():
            try:
                self._sample_all()
            except Exception:
                self.logger.warning("A sample was lost.", exc_info=True)
            finally:
                self.switch_interval.want(self, None)

    def _wait_for_profiles(self) -> bool:
        """Returns: True when there is a profile to sample; False at the end."""
        self._is_idle = True
        while not self.profiles and not self._stopped:  # `add` sees from here on that it is idle.
            self._wakes.get()
        self._is_idle = False
        return not self._stopped

    def _sample_all(self) -> None:
        """Samples until no profile is left."""
        uniform = random.Random().uniform  # noqa: S311 - nobody's secret depends on it.
        clock = time.perf_counter
        shortest_s, longest_s = _SWITCH_INTERVAL_S
        took_s, switch_s = 0.0, math.inf
        next_s = clock() + self._shortest_s * uniform(0.5, 1.5)
        while self.profiles and not self._stopped:
            wanted_s = min(max(took_s * _SAMPLES_TO_SWITCH, shortest_s), longest_s)
            if not 0.7 < wanted_s / switch_s < 1.4:
                switch_s = wanted_s
                self.switch_interval.want(self, switch_s)
            due_s = next_s
            time.sleep(max(due_s - clock(), 0.0))
            now_s = clock()
            turns_s = 2 * switch_s * len(self.profiles)
            while (next_s := due_s + self._shortest_s * uniform(0.5, 1.5)) < now_s - turns_s:
                due_s = next_s  # A thread kept the GIL for longer than a round of switches: all of that is its time.
            self._sample(due_s)
            took_s = 0.9 * took_s + 0.1 * min(clock() - now_s, longest_s)

    def _sample(self, due_s: float) -> None:
        look = Look()
        asked = [(profile, profile.ask(look, self.loop_thread_id)) for profile in self.profiles]
        look.take()
        for profile, stacks in asked:
            profile.sample(due_s, stacks)
