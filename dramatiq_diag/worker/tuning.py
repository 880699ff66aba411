"""How often the threads of a worker process do their duties, how long they wait, and how much they hold."""

from __future__ import annotations

from dataclasses import dataclass

from ..spool.backlog import MAX_HELD


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Intervals, time-outs and limits of a worker process. Nothing but a test needs other values than these."""

    rss_s: float = 0.05
    "Seconds between looks at the RSS and the triggers. A look costs about 15 us and serves all runs."
    state_s: float = 1.0
    "Seconds between notes of the memory state of the process."
    near_s: float = 0.1
    "Seconds between notes of which runs grow the process, while it grows near a limit of memory."
    measure_s: float = 5.0
    "Seconds between measurements of the spool."
    max_open: int = 64
    "The most ended runs that wait to be saved with an open file; 1,024 files is a usual limit of a process."
    max_waiting: int = 5000
    "While so many ended runs wait to be saved, no task is diagnosed. Each takes 4 to 17 KB until it is saved."
    max_held: int = MAX_HELD
    "The most runs that wait in memory for the store, about 700 bytes each."
    attention_s: float = 2.5
    "Seconds between looks at whether something is asked of the process; one query each, by turns with a report."
    watched_s: float = 1.0
    "The same while somebody watches a task of the process."
    captures_s: float = 30.0
    "Seconds between looks at which captures are open, if nothing calls for one: older versions do not."
    actors_s: float = 3600.0
    "Seconds after which a process says again which actors it has."
    salvage_s: float = 3.0
    "Seconds between looks for entries of dead workers."
    report_s: float = 5.0
    "Seconds between the reports of the process about itself."
    schedule_s: float = 30.0
    "Seconds between looks at whether a cleanup is due."
    heap_look_s: float = 0.2
    "The least seconds between looks at the live heap, each after the end of a run."
    heap_share: float = 0.001
    "The part of the time that looks at the live heap may take. One takes 25 us in a small process, and often 300 us."
    heap_window_s: float = 30.0
    "The least seconds of a window of the live heap."
    heap_window_runs: int = 30
    "The fewest runs that end in such a window."
    backoff_s: tuple[float, float] = (0.25, 10.0)
    "The shortest and the longest pause after a fault of the store, in seconds."


TUNING = Tuning()
