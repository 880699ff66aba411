"""Samples the stacks of all profiled runs of the process, on one thread."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Coroutine
from types import CodeType
from typing import Any

from ...runtime.frames import Look
from ...runtime.loggers import get_logger
from ...runtime.sampling_thread import SamplingThread
from ...runtime.stacks import OTHER, Codes, CoroutineStacks, Stack, ThreadStack
from ...runtime.switch_interval import SwitchInterval

#: The most distinct stacks of one profile; beyond it the lightest ones are folded.
MAX_STACKS = 10_000

#: The most frames in all of them; each takes 16 bytes, and a microsecond whenever the profile is written.
MAX_FRAMES = 300_000

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
      interval_s: Seconds between samples on average. The shortest interval of all profiles holds for all.
      called: Gives the time at which the function was called, by `time.perf_counter`; earlier time is not charged.
    """

    def __init__(
        self,
        thread_id: int,
        anchor: CodeType,
        *,
        is_async: bool,
        root: CodeType | None = None,
        interval_s: float = math.inf,
        called: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.thread_id = thread_id
        self.anchor = anchor
        self.root = root
        self.is_async = is_async
        self.coroutine: Coroutine[Any, Any, Any] | None = None
        "The coroutine of an async actor, once it is known."
        self.interval_s = interval_s
        self.codes: Codes = {}
        self.seconds: dict[Stack, float] = {}
        "Stack -> seconds."
        self.timeline: list[tuple[Stack, float]] | None = []
        "Stacks in their order, with seconds; None once the timeline is too long."
        self.sample_count = 0
        self.called = called
        self.last_s = 0.0
        "When the last sample was due, or the sampling began, by `time.perf_counter`."
        self._timeline_frames = 0
        self._frames = 0
        "Those of all stacks in `seconds`."
        self._numbers: dict[int, int] = {}
        "Each number in the stacks -> the one object for it."
        self._has_folded = False
        "Whether there may be codes and numbers that are in no stack any more."

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
            for stack in stacks:
                self.add(stack, spent_s / len(stacks))
            if self._has_folded:
                self._has_folded = False
                self._forget_codes()

    def add(self, stack: Stack, spent_s: float) -> None:
        """Adds seconds to a stack."""
        seconds = self.seconds
        if stack not in seconds:
            if len(seconds) >= MAX_STACKS or self._frames + len(stack) // 2 > MAX_FRAMES:
                self._fold()
            stack = tuple(map(self._numbers.setdefault, stack, stack))
            self._frames += len(stack) // 2
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
        self._has_folded = True
        seconds = self.seconds
        while len(seconds) > MAX_STACKS * 3 // 4 or self._frames > MAX_FRAMES * 3 // 4:
            lightest = sorted(seconds, key=seconds.__getitem__)[: len(seconds) // 2]
            for stack in lightest:
                spent_s = seconds.pop(stack)
                frames = len(stack) // 2 - (stack[-2] == OTHER)
                folded = (*stack[: frames // 2 * 2], OTHER, 0)
                seconds[folded] = seconds.get(folded, 0.0) + spent_s
            self._frames = sum(map(len, seconds)) // 2

    def _forget_codes(self) -> None:
        """Drops the code objects that are in no stack any more."""
        used = {key for stack in self.seconds for key in stack[::2]}
        self._numbers = {number: number for stack in self.seconds for number in stack}
        self.codes = {key: code for key, code in self.codes.items() if key in used}


class Sampler(SamplingThread[Profile]):
    """Samples all its profiles at each turn; idle without profiles.

    The times of samples do not depend on the tasks, and each sample stands for the time up to when it was due. So a
    task that keeps the GIL delays a sample, but changes neither its weight nor the next one.

    Each interval is drawn from half to one and a half of the wanted one, so that periodic work of a task is seen too.

    Parameters:
      switch_interval: Kept short while it samples: a sample is taken when the running thread gives up the GIL.
    """

    def __init__(self, switch_interval: SwitchInterval) -> None:
        super().__init__("sampler")
        self.logger = get_logger(__name__, type(self))
        self.switch_interval = switch_interval
        self.loop_thread_id: int | None = None
        "The thread of the event loop, once there is one."
        self._shortest_s = 0.0
        "The interval of the profile that wants the most samples, as the sampler last saw it."

    @property
    def profiles(self) -> frozenset[Profile]:
        """The profiles that are sampled."""
        return self.sampled

    def sample_all(self) -> None:
        try:
            self._sample_all()
        except BaseException:
            self.logger.warning("A sample was lost.", exc_info=True)
        finally:
            self.switch_interval.want(self, None)

    def _sample_all(self) -> None:
        """Samples until no profile is left."""
        uniform = random.Random().uniform  # noqa: S311 - no secret depends on it.
        clock = time.perf_counter
        shortest_s, longest_s = _SWITCH_INTERVAL_S
        took_s, switch_s = 0.0, math.inf
        next_s = clock() + self._interval_s(uniform)
        while self.is_wanted:
            wanted_s = min(max(took_s * _SAMPLES_TO_SWITCH, shortest_s), longest_s)
            if not 0.7 < wanted_s / switch_s < 1.4:
                switch_s = wanted_s
                self.switch_interval.want(self, switch_s)
            due_s = next_s
            time.sleep(max(due_s - clock(), 0.0))
            now_s = clock()
            turns_s = 2 * switch_s * len(self.profiles)
            while (next_s := due_s + self._interval_s(uniform)) < now_s - turns_s:
                due_s = next_s  # A thread kept the GIL for longer than a round of switches: all of that is its time.
            self._sample(due_s)
            took_s = 0.9 * took_s + 0.1 * min(clock() - now_s, longest_s)

    def _interval_s(self, uniform: Callable[[float, float], float]) -> float:
        """Returns: The time until the next sample; without a profile by the one that was sampled last."""
        self._shortest_s = min((profile.interval_s for profile in self.profiles), default=self._shortest_s)
        return self._shortest_s * uniform(0.5, 1.5)

    def _sample(self, due_s: float) -> None:
        look = Look()
        asked = [(profile, profile.ask(look, self.loop_thread_id)) for profile in self.profiles]
        look.take()
        for profile, stacks in asked:
            profile.sample(due_s, stacks)
