"""A real run of ten minutes, busy with varied work: what its profile holds, and what it takes to look at it."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Iterator

import dramatiq
from sqlalchemy import select

from dramatiq_diag.collectors.time_profile.collector import PyinstrumentCollector
from dramatiq_diag.demo.work import index_sources
from dramatiq_diag.store.models import Artifact
from dramatiq_diag.store.store import Store
from dramatiq_diag.text import MIB

from .accuracy import KINDS
from .profile import rendered
from .result import Result
from .worker import worker

_SECONDS = float(os.environ.get("BENCH_SECONDS", "600"))


def run() -> Iterator[Result]:
    """Yields one row a figure; the budgets are those of an hour."""
    held: list[int] = []
    with worker(task_diagnostics=["pyinstrument"]) as (broker, diagnostics):
        assert diagnostics.process is not None
        collector = diagnostics.process.collectors["pyinstrument"]
        assert isinstance(collector, PyinstrumentCollector)

        def busy() -> None:
            chance = random.Random(5)  # noqa: S311
            kinds = [*KINDS.values(), index_sources]
            ends = time.monotonic() + _SECONDS
            while time.monotonic() < ends:
                chance.choice(kinds)()
            (profile,) = collector.sampler.profiles
            held.append(_held_bytes(dict(profile.seconds)))

        actor = dramatiq.actor(busy, actor_name="busy", broker=broker)
        actor.send()
        broker.join(actor.queue_name)
        assert diagnostics.flush(60)
        store = Store(diagnostics.settings)
        with store.session() as session:
            name = session.execute(select(Artifact.blob_name)).scalar_one()
        with store.blobs.open(str(name)) as file:
            stored = file.read()
        store.close()
    session_dict = json.loads(stored)
    started = time.perf_counter()
    html = rendered(stored)
    rendering_s = time.perf_counter() - started
    what = f"busy run of {_SECONDS / 60:g} minutes"
    size_mib, held_mib = len(html) / MIB, held[0] / MIB
    accounted = sum(spent_s for _, spent_s in session_dict["frame_records"]) / session_dict["duration"]
    yield Result(
        what=f"{what}, time accounted for",
        budget="95 %",
        measured=f"{100 * accounted:.1f} %, {session_dict['sample_count']} samples",
        met=0.95 < accounted < 1.05,
    )
    yield Result(what=f"{what}, stacks in memory", budget="32 MB", measured=f"{held_mib:.2f} MB", met=held_mib < 32)
    yield Result(what=f"{what}, HTML", budget="2 MB", measured=f"{size_mib:.2f} MB", met=size_mib < 2)
    yield Result(what=f"{what}, rendering", budget="1 s", measured=f"{rendering_s:.2f} s", met=rendering_s < 1)


def _held_bytes(stacks: dict[tuple[int, ...], float]) -> int:
    """Returns: What the stacks take, down to the last number."""
    parts = (sys.getsizeof(stack) + sum(map(sys.getsizeof, stack)) for stack in stacks)
    return sys.getsizeof(stacks) + sum(parts) + sum(map(sys.getsizeof, stacks.values()))
