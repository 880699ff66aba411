"""pyinstrument's own profiler, taken away from its thread whatever state an interrupt left it in."""

from __future__ import annotations

from typing import Any


def tolerant(profiler_class: Any) -> Any:
    """Returns: A subclass of `pyinstrument.Profiler` that takes no harm from an interrupt in its start or its stop.

    Where one strikes, samples come that pyinstrument's class does not expect, and it raises an error in the task.
    """

    class TolerantProfiler(profiler_class):  # type: ignore[misc]
        def _sampler_saw_call_stack(self, *sample: Any) -> None:
            if self.is_running:
                super()._sampler_saw_call_stack(*sample)

    return TolerantProfiler


def is_heard(profiler: Any) -> bool:
    """Returns: Whether a `pyinstrument.Profiler` receives the samples of this thread."""
    from pyinstrument.stack_sampler import get_stack_sampler

    target = profiler._sampler_saw_call_stack
    return any(subscriber.target == target for subscriber in get_stack_sampler().subscribers)


def silence(profiler: Any) -> None:
    """Undoes `Profiler.start` on this thread, as far as it came; may be called again after an interrupt in it.

    pyinstrument undoes nothing of a start that an exception cuts short, nor of a stop. Then each later profiler of the
    thread fails with "There is already a profiler running", and each call on the thread costs what a profiler costs.
    """
    from pyinstrument.stack_sampler import active_profiler_context_var, get_stack_sampler

    target = profiler._sampler_saw_call_stack
    if active_profiler_context_var.get() == target:
        active_profiler_context_var.set(None)
    sampler: Any = get_stack_sampler()
    sampler.subscribers[:] = [subscriber for subscriber in sampler.subscribers if subscriber.target != target]
    sampler._update()  # Which removes the profile function where nobody is left.
