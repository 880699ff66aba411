"""Windows of the live heap, made up with a known truth, or written into a store."""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from dramatiq_diag.insights.live_memory import Window
from dramatiq_diag.store.heap_windows import HeapWindowRecord, add_windows
from dramatiq_diag.store.store import Store


def process(
    seed: int,
    actors: Sequence[str],
    leaks: Mapping[str, float] | None = None,
    *,
    windows: int = 200,
    runs: int = 30,
    noise_bytes: float = 5000.0,
    background_bytes: float = 0.0,
    together: Mapping[str, str] | None = None,
    fragments: Mapping[str, float] | None = None,
    fills: Mapping[str, int] | None = None,
) -> list[Window]:
    """Makes the windows of one process.

    Parameters:
      leaks: Actor -> the bytes that each of its runs keeps, in the C library's heap.
      runs: How many runs end in a window; each is of a random actor, out of a few that are busy at the time.
      noise_bytes: What tasks that go on need, on average, at the moment of the least memory.
      background_bytes: What each run of any actor keeps.
      together: Actor -> another one that runs exactly as often.
      fragments: Actor -> the bytes that each of its runs adds to what the heap keeps free, and to the RSS.
      fills: Actor -> how many of its runs fill a cache, with 1,000 bytes each.
    """
    chance = random.Random(seed)
    in_use, free, ran = 50e6, 5e6, Counter[str]()
    made: list[Window] = []
    busy: Sequence[str] = ()
    for number in range(windows):
        if number % 3 == 0:
            busy = chance.sample(actors, min(len(actors), max(4, len(actors) // 20)))
        counts = Counter(chance.choices([name for name in busy if name not in (together or {})] or actors, k=runs))
        for follower, leader in (together or {}).items():
            if counts[leader]:
                counts[follower] = counts[leader]
        for name, count in counts.items():
            in_use += count * ((leaks or {}).get(name, 0.0) + background_bytes)
            in_use += 1000 * max(min(count, (fills or {}).get(name, 0) - ran[name]), 0)
            free += count * (fragments or {}).get(name, 0.0)
            ran[name] += count
        made.append(
            Window(
                number=number,
                runs={name: count for name, count in counts.items() if count},
                small_bytes=int(40e6 + chance.expovariate(1 / noise_bytes)),
                in_use_bytes=int(in_use + chance.expovariate(1 / noise_bytes)),
                free_bytes=int(free + chance.expovariate(1 / noise_bytes)),
                rss_bytes=int(1.1 * (40e6 + in_use + free)),
            )
        )
    return made


def store_windows(store: Store, windows: Iterable[Window], *, ended_at: datetime | None = None) -> uuid.UUID:
    """Stores the windows of a process, the last of which ended just now. Returns: The id of the process."""
    worker_id, listed = uuid.uuid4(), list(windows)
    last = ended_at or datetime.now(UTC)
    records = []
    for window in listed:
        end = last - timedelta(seconds=30 * (len(listed) - 1 - window.number))
        records.append(
            HeapWindowRecord(
                window_id=uuid.uuid4(),
                worker_id=worker_id,
                number=window.number,
                started_at=end - timedelta(seconds=30),
                ended_at=end,
                runs=dict(window.runs),
                looks=5,
                small_bytes=window.small_bytes,
                in_use_bytes=window.in_use_bytes,
                free_bytes=window.free_bytes,
                rss_bytes=window.rss_bytes,
            )
        )
    with store.session() as session:
        add_windows(session, records)
    return worker_id
