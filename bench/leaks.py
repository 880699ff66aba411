"""Whether a leaking actor among twenty is named, and no other: seeded, each seed in a process of its own."""

from __future__ import annotations

import io
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import dramatiq
from dramatiq import Actor
from dramatiq.brokers.stub import StubBroker
from sqlalchemy import select

from dramatiq_diag import Settings
from dramatiq_diag.insights.leaks import ActorFinding
from dramatiq_diag.insights.stored_leaks import read_leaks
from dramatiq_diag.maintenance.leak_captures import capture_leaks
from dramatiq_diag.reports.memray import View
from dramatiq_diag.statuses import LeakVerdict
from dramatiq_diag.store.models import Artifact
from dramatiq_diag.store.store import Store
from dramatiq_diag.worker.tuning import Tuning

from .result import Result
from .worker import worker
from .zoo import INNOCENTS, LEAKS, place_of

#: Of a leaking actor's runs about 3,000 are in a seed: the mix is even over the whole, though not at any time.
ACTORS, THREADS, RUNS = 20, 8, 60_000

#: As in most queues, messages come in batches of some actors.
BATCH, ACTORS_OF_BATCH = 60, 4

#: Seconds that a task sleeps before it does what it is for.
SLEEP_S = 0.001, 0.01

SEEDS = 20

#: A worker has as many windows in some hours as these have in a minute; each has more looks there.
TUNING = Tuning(heap_window_s=0.5, heap_look_s=0.02, heap_share=0.01, attention_s=0.1)


def run(seeds: int = SEEDS, runs: int = RUNS) -> Iterator[Result]:
    """Yields the rows of leaking seeds, of clean ones, and of the captures that confirm."""
    leaking = [_measure(seed, [*LEAKS][seed % len(LEAKS)], runs) for seed in range(1, seeds + 1)]
    named = [[name for name, *_ in found] == [planted] for planted, found in leaking]
    kept = [found[0][1] for (_, found), is_named in zip(leaking, named, strict=True) if is_named]
    yield Result(
        what=f"leaking actor named among {ACTORS}, {THREADS} threads, {runs // ACTORS} runs of each",
        budget=f"{0.95 * seeds:.0f} of {seeds} seeds",
        measured=f"{sum(named)} of {seeds}, kept of a run {statistics.median(kept or [0.0]):.0f} bytes",
        met=sum(named) >= 0.95 * seeds,
    )
    accused = sum(len(found) for _, found in (_measure(100 + seed, None, runs) for seed in range(1, seeds + 1)))
    yield Result(
        what=f"accused of {ACTORS} clean actors",
        budget="1 in 20 seeds",
        measured=f"{accused} in {seeds}",
        met=accused <= 1,
    )
    lines = [kind for kind in LEAKS if confirm(kind)]
    yield Result(
        what="the confirming capture names the planted line",
        budget=f"{len(LEAKS)} of {len(LEAKS)} ways to leak",
        measured=f"{len(lines)}: {', '.join(lines)}",
        met=len(lines) == len(LEAKS),
    )


def _measure(seed: int, kind: str | None, runs: int) -> tuple[str | None, list[tuple[str, float]]]:
    """Executes a seed in a process of its own. Returns: The planted actor, and those that are found to leak."""
    with tempfile.TemporaryDirectory(prefix="dramatiq_diag_leaks_") as data_dir:
        command = [sys.executable, "-m", "bench.leaks", str(seed), kind or "", str(runs), data_dir]
        subprocess.run(command, check=True, timeout=1800)  # noqa: S603
        planted = json.loads(Path(data_dir, "planted.json").read_text())["planted"]
        found = [(one.actor_name, one.bytes_per_run or 0.0) for one in accused_in(data_dir)]
    print(f"seed {seed}, {kind}: planted {planted}, found {found}", file=sys.stderr)  # noqa: T201
    return planted, found


def accused_in(data_dir: str) -> list[ActorFinding]:
    """Returns: The actors that are found to leak in a store."""
    with closing(Store(Settings(data_dir=data_dir))) as store, store.session() as session:
        return [one for one in read_leaks(session).findings if one.verdict is LeakVerdict.LEAKS]


def execute(seed: int, kind: str | None, runs: int, data_dir: str) -> str | None:
    """Executes tasks of twenty actors, one of which leaks. Returns: Its name, or None without one."""
    chance = random.Random(seed)  # noqa: S311
    functions = [*INNOCENTS, *(chance.choice(INNOCENTS) for _ in range(ACTORS - len(INNOCENTS)))][:ACTORS]
    chance.shuffle(functions)
    planted = None
    if kind is not None:
        planted = chance.randrange(ACTORS)
        functions[planted] = LEAKS[kind]
    with worker(THREADS, tuning=TUNING, data_dir=data_dir, task_diagnostics_on_request=["memory"]) as (broker, _):
        actors = [_actor(broker, f"actor_{number:02}", functions[number]) for number in range(ACTORS)]
        for first in range(0, runs, BATCH):
            batch = chance.sample(actors, ACTORS_OF_BATCH)
            for number in range(first, first + BATCH):
                chance.choice(batch).send(number, chance.uniform(*SLEEP_S))
            broker.join("default")
    return None if planted is None else f"actor_{planted:02}"


def _actor(broker: StubBroker, name: str, function: Callable[[int], None]) -> Actor[..., None]:
    def work(number: int, seconds: float) -> None:
        time.sleep(seconds)
        function(number)

    return dramatiq.actor(work, actor_name=name, broker=broker)


def confirm(kind: str) -> bool:
    """Captures runs of a leaking actor. Returns: Whether the report of what was not freed names the planted line."""
    temporary = tempfile.TemporaryDirectory(prefix="dramatiq_diag_leaks_")
    with temporary as data_dir, closing(Store(Settings(data_dir=data_dir))) as store:
        settings = {"data_dir": data_dir, "task_diagnostics_on_request": ["memray"]}
        with worker(THREADS, tuning=TUNING, **settings) as (broker, diagnostics):
            planted = _actor(broker, "planted", LEAKS[kind])
            with closing(Store(diagnostics.settings)) as asking:
                capture_leaks(asking, ["planted"])
            path = None
            for number in range(10_000):
                planted.send(number, 0.01)
                broker.join("default")
                diagnostics.flush(60)
                with store.session() as session:
                    names = session.execute(select(Artifact.blob_name).where(Artifact.blob_name.is_not(None))).scalars()
                    path = next(iter(names), None)
                if path is not None:
                    break
            assert path is not None, "no run was captured"
        report = io.BytesIO()
        View(report="tree", leaks=True).render(str(store.blobs.root / path), report)
    file, lines = place_of(LEAKS[kind])
    text = report.getvalue().decode()
    return any(f"{file}:{line}" in text for line in lines)


def _main(arguments: Sequence[str]) -> None:
    seed, kind, runs, data_dir = arguments
    planted = execute(int(seed), kind or None, int(runs), data_dir)
    answer = {"seed": int(seed), "kind": kind or None, "planted": planted}
    Path(data_dir, "planted.json").write_text(json.dumps(answer))


if __name__ == "__main__":
    _main(sys.argv[1:])
