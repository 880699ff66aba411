"""Lists the figures of a run that people see, for the pages and the command line alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..store.runs import Sort
from ..text import format_duration, format_size

#: Unit of a call tree -> makes the text of its figures.
SHOWN_IN: Mapping[str, Callable[[float | None], str]] = {"ms": format_duration, "bytes": format_size}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure of a run: a column of lists, a fact about one run, and a row of a comparison."""

    field: str
    "The name of its field, in a row and in RUN."
    label: str
    show: Callable[[float | None], str]
    "Makes its text."
    heading: str | None = None
    "The heading of its column; None if it is in no list and no comparison."
    is_listed: bool = False
    "Whether each list has the column, and not only one that is sorted by it."
    sort: Sort | None = None
    "The order in which the largest comes first."
    meaning: str | None = None
    "What it means and what it leaves out, in a sentence or two."

    def text(self, run: Mapping[str, Any]) -> str:
        """Returns: The text of the figure of a RUN."""
        return self.show(run[self.field])


def _count(number: float | None) -> str:
    return "-" if number is None else f"{number:,.0f}"


#: A new figure is an entry here, and the pages and the command line show it.
RUN_FIGURES = (
    Figure(
        field="duration_ms",
        label="Duration",
        show=format_duration,
        heading="Duration",
        is_listed=True,
        sort=Sort.SLOWEST,
    ),
    Figure(
        field="queue_wait_ms",
        label="Waited in the queue",
        show=format_duration,
        heading="Queue wait",
        sort=Sort.QUEUE_WAIT,
        meaning="From the moment when the message was due until a worker took it up, by the clocks of two machines.",
    ),
    Figure(
        field="cpu_ms",
        label="CPU time",
        show=format_duration,
        heading="CPU",
        is_listed=True,
        sort=Sort.CPU,
        meaning="Of the task's own thread; of an async actor, of the steps of its coroutine without tasks that it "
        "creates. Threads and processes that the task starts itself, and native threads, are not included.",
    ),
    Figure(
        field="run_queue_ms",
        label="Waited for a processor",
        show=format_duration,
        heading="Run queue",
        sort=Sort.RUN_QUEUE,
        meaning="The task's thread could run, and the kernel had no processor for it. Waiting for the GIL is not "
        "included. Unknown for async actors.",
    ),
    Figure(
        field="gc_ms",
        label="Garbage collection",
        show=format_duration,
        heading="GC",
        sort=Sort.GC,
        meaning="CPU time of Python's garbage collector on the task's thread, a part of its CPU time. Which thread "
        "collects is chance: it may be the garbage of others. Unknown for async actors.",
    ),
    Figure(
        field="throttled_ms",
        label="Container throttled",
        show=format_duration,
        meaning="The CPU limit of the container was used up, and the kernel stopped all its threads, or some of them, "
        "while the task ran. It does not say who used it up. Each processor counts by itself, so it may be more than "
        "the duration.",
    ),
    Figure(
        field="touched_bytes",
        label="Memory touched, about",
        show=format_size,
        heading="Touched",
        sort=Sort.TOUCHED,
        meaning="Memory that the task's thread was the first to touch: its page faults times the size of a page. What "
        "it gave back counts as well; the RSS is that of the whole process. Memory that the process already had is not "
        "included, nor what other threads touch that the task starts; a huge page counts as a small one, and what is "
        "written after a fork, or after it was read first, counts once more. Unknown for async actors.",
    ),
    Figure(
        field="major_faults",
        label="Page faults that read a disk",
        show=_count,
        meaning="The task's thread needed a page that was not in memory: of a file, or swapped out. Unknown for async "
        "actors.",
    ),
    Figure(field="collection_ms", label="Collectors took in addition", show=format_duration),
    Figure(
        field="peak_rss_bytes",
        label="Peak RSS of the process",
        show=format_size,
        heading="Peak RSS",
        is_listed=True,
        sort=Sort.MEMORY,
    ),
)

#: The figures that comparisons show.
COMPARED_FIGURES = tuple(figure for figure in RUN_FIGURES if figure.heading is not None)

#: The figures that each list shows.
LISTED_FIGURES = tuple(figure for figure in RUN_FIGURES if figure.is_listed)


def figures_of_list(sort: Sort) -> tuple[Figure, ...]:
    """Returns: The figures of a list in an order: those of each list, and the one that it is sorted by."""
    return tuple(figure for figure in COMPARED_FIGURES if figure.is_listed or figure.sort is sort)
