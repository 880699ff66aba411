"""The profile of a task that is busy for an hour: memory, size, and time to render."""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from types import CodeType

from dramatiq_diag.collectors.time_profile.sampler import Profile
from dramatiq_diag.collectors.time_profile.session import describe_thread, session_of
from dramatiq_diag.reports.process import RenderProcess
from dramatiq_diag.runtime.stacks import Stack
from dramatiq_diag.text import MIB

from .result import Result

#: Samples of an hour at the default interval.
_SAMPLES = 720_000
_FUNCTIONS = 2000


def run() -> Iterator[Result]:
    """Yields one row a figure; the sampler is fed, as an hour is long."""
    codes = {id(code): code for code in map(_code, range(_FUNCTIONS))}
    stacks = _stacks(list(codes), random.Random(7))  # noqa: S311
    tracemalloc.start()
    profile = Profile(0, _code(0), is_async=False)
    profile.codes = codes
    chance = random.Random(8)  # noqa: S311
    for _ in range(_SAMPLES):
        profile.add((*chance.choice(stacks),), 0.005)
    held_mib = tracemalloc.get_traced_memory()[0] / MIB
    tracemalloc.stop()
    session = _session(profile)
    rendering_s = []
    for _ in range(5):
        started = time.perf_counter()
        html = rendered(session)
        rendering_s.append(time.perf_counter() - started)
    yield Result(what="hour-long profile, memory", budget="32 MB", measured=f"{held_mib:.1f} MB", met=held_mib < 32)
    size_mib = len(html) / MIB
    yield Result(what="hour-long profile, HTML", budget="2 MB", measured=f"{size_mib:.2f} MB", met=size_mib < 2)
    median_s = statistics.median(rendering_s)
    yield Result(what="hour-long profile, rendering", budget="1 s", measured=f"{median_s:.2f} s", met=median_s < 1)


def rendered(session: bytes) -> bytes:
    """Renders a stored session to HTML, in a process of its own as the web app does it."""
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as target:
        source.write(session)
        source.flush()
        RenderProcess().render(source, target, "pyinstrument.session.json", "html")
        target.seek(0)
        return target.read()


def _session(profile: Profile) -> bytes:
    session = session_of(
        profile.seconds.items(),
        profile.codes,
        in_order=False,
        start_time=0.0,
        duration_s=3600.0,
        cpu_time_s=3600.0,
        interval_s=0.005,
        sample_count=_SAMPLES,
        thread=describe_thread("worker", 1),
        root="root\0root.py\x001",
        target_description="An hour of varied work",
    )
    return json.dumps(session).encode()


def _stacks(codes: list[int], chance: random.Random) -> list[Stack]:
    """Returns: Stacks of a large program: 40,000 distinct ones, most of the time in few of them."""
    stacks = []
    for _ in range(40_000):
        depth = chance.randint(5, 40)
        chain = [codes[0]] + [
            codes[min(int(chance.paretovariate(0.6)) + level, _FUNCTIONS - 1)] for level in range(depth)
        ]
        stacks.append(tuple(part for code in chain for part in (code, chance.randint(1, 10))))
    return [stacks[min(int(chance.paretovariate(0.4)), len(stacks) - 1)] for _ in range(200_000)]


def _code(number: int) -> CodeType:
    return (lambda: None).__code__.replace(
        co_name=f"function_{number}",
        co_qualname=f"Class{number % 50}.function_{number}",
        co_filename=f"/srv/app/package_{number % 20}/module_{number % 200}.py",
        co_firstlineno=1 + number,
    )
