"""Renders allocation profiles with memray: of the task's own thread or of all, at the peak or of memory never freed."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any, BinaryIO, TextIO

from ..errors import NotInstalledError
from ..text import format_size, printable
from .allocation_stacks import PACKAGE_NAME, SHARED_THREAD, AllocationThreads, ShownRecord, is_own_code, shown_records
from .errors import ReportError
from .memray_units import in_binary_units

#: The largest allocations of a tree, and the lines of a summary.
_TREE_ALLOCATIONS = 200
_SUMMARY_ROWS = 50
#: The largest places that statistics name, and how many more are read because those of this package are left out.
_STATS_PLACES = 10
_STATS_OWN_PLACES = 100
#: Calls with a smaller share of all allocations are left out of a tree.
_TREE_SHARE = 0.01


@dataclass(frozen=True, kw_only=True)
class View:
    """One of the reports of an allocation profile."""

    report: str
    whole_process: bool = False
    "Whether it covers all threads; otherwise only the one that the task ran on."
    leaks: bool = False
    "Whether it shows the memory that was not freed by the end; otherwise the memory held at the peak."

    @property
    def name(self) -> str:
        """The name of its format."""
        return self.report + ("-process" if self.whole_process else "") + ("-leaks" if self.leaks else "")

    @property
    def is_html(self) -> bool:
        """Whether it is an HTML page; otherwise a text."""
        return self.report in ("flamegraph", "table")

    def render(self, path: str, target: BinaryIO) -> None:
        """Renders a profile. Raises: NotInstalledError without memray, ReportError when the profile is damaged."""
        with _errors():
            out = io.TextIOWrapper(target, "utf-8", errors="replace")
            _REPORTS[self.report](self, path, out)
            out.detach()  # It flushes, and leaves the target open.


#: The statistics are memray's own, which always cover the whole process.
VIEWS = [
    *(
        View(report=report, whole_process=whole_process, leaks=leaks)
        for report in ("flamegraph", "table", "tree", "summary")
        for whole_process in (False, True)
        for leaks in (False, True)
    ),
    View(report="stats", whole_process=True),
]


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    try:
        import memray  # noqa: F401 - all reports need it.
    except ImportError as error:
        raise NotInstalledError(
            f"Rendering this needs memray, which is not installed ({error}): pip install 'dramatiq_diag[memray]'"
        ) from error
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        raise ReportError(
            f"The allocation profile cannot be read ({error}); see `dramatiq-diag check`, and whether this machine has "
            "the Python and memray of the worker, or newer ones."
        ) from error


@dataclass(frozen=True, kw_only=True)
class _Shown:
    """The records that a view shows."""

    records: Any
    "A list of `ShownRecord`."
    native: bool
    is_shared: bool
    "Whether other tasks ran on the same thread."


def _shown(view: View, reader: Any) -> _Shown:
    # Only records that are not merged over threads name their thread.
    if view.leaks:
        records = list(reader.get_leaked_allocation_records(merge_threads=False))
    else:
        records = list(reader.get_high_watermark_allocation_records(merge_threads=False))
    threads = AllocationThreads(records, reader.metadata.main_thread_id)
    native, own = reader.metadata.has_native_traces, not view.whole_process
    shown = list(shown_records(records, threads, native=native, own=own))
    return _Shown(records=shown, native=native, is_shared=own and threads.is_shared)


def peak_records(path: str, *, whole_process: bool) -> tuple[list[ShownRecord], bool]:
    """Reads the allocations held at the peak, without the calls above the actor's function.

    Parameters:
      path: The profile.
      whole_process: Whether to read all threads; otherwise only the one that the task ran on.

    Returns:
      The records, and whether other tasks ran on that thread.

    Raises:
      As `View.render` does.
    """
    with _errors():
        from memray import FileReader

        with FileReader(path) as reader:
            shown = _shown(View(report="tree", whole_process=whole_process), reader)
    return shown.records, shown.is_shared


def _html(view: View, path: str, out: TextIO) -> None:
    from memray import FileReader
    from memray.reporters.flamegraph import FlameGraphReporter
    from memray.reporters.table import TableReporter

    reporter_class: Any = FlameGraphReporter if view.report == "flamegraph" else TableReporter
    with FileReader(path) as reader:
        shown = _shown(view, reader)
        reporter = reporter_class.from_snapshot(
            shown.records,
            memory_records=tuple(reader.get_memory_snapshots()),
            native_traces=shown.native,
        )
        page = io.StringIO()
        reporter.render(
            outfile=page,
            metadata=reader.metadata,
            show_memory_leaks=view.leaks,
            merge_threads=True,
            inverted=False,
            no_web=True,  # The scripts stand in the page; none is loaded from another host.
        )
    out.write(in_binary_units(page.getvalue()))


def _tree(view: View, path: str, out: TextIO) -> None:
    from memray import FileReader
    from memray.reporters.tree import TreeReporter

    with FileReader(path) as reader:
        shown = _shown(view, reader)
        root = TreeReporter.from_snapshot(
            iter(shown.records), native_traces=shown.native, biggest_allocs=_TREE_ALLOCATIONS
        ).data
    of = f" {SHARED_THREAD}" if shown.is_shared else ""
    out.write(f"{format_size(root.value)} in {root.n_allocations} allocations{of}\n")
    _write_branches(root, root.value, "", out)


def _write_branches(node: Any, whole_bytes: int, indent: str, out: TextIO) -> None:
    branches = sorted(node.children.values(), key=lambda branch: branch.value, reverse=True)
    shown = [branch for branch in branches if branch.value >= whole_bytes * _TREE_SHARE]
    for branch in shown:
        last = branch is shown[-1]
        function, file, line = branch.location
        place = printable(f"{function}  {file}:{line}")
        out.write(f"{indent}{'└─ ' if last else '├─ '}{format_size(branch.value)} {place}\n")
        _write_branches(branch, whole_bytes, indent + ("   " if last else "│  "), out)


def _summary(view: View, path: str, out: TextIO) -> None:
    from memray import FileReader
    from memray.reporters.summary import SummaryReporter

    with FileReader(path) as reader:
        shown = _shown(view, reader)
        reporter = SummaryReporter.from_snapshot(shown.records, native=shown.native)
    whole_bytes = max(reporter.current_memory_size, 1)
    by_size = sorted(reporter.snapshot_data.items(), key=lambda item: item[1].total_memory, reverse=True)
    if shown.is_shared:
        out.write(f"Allocations {SHARED_THREAD}\n")
    out.write(f"{'with calls':>14} {'share':>7} {'by itself':>14} {'allocations':>11}  function\n")
    for place, held in by_size[:_SUMMARY_ROWS]:
        figures = f"{format_size(held.total_memory):>14} {100 * held.total_memory / whole_bytes:>5.1f} %"
        figures += f" {format_size(held.own_memory):>14} {held.n_allocations:>11}"
        out.write(f"{figures}  {printable(f'{place.function}  {place.file}')}\n")


def _stats(_: View, path: str, out: TextIO) -> None:
    from memray._memray import compute_statistics

    reporter_module: Any = import_module("memray.reporters.stats")
    text = io.StringIO()
    reporter_module.size_fmt = format_size  # This process renders one report and ends.
    statistics = compute_statistics(path, num_largest=_STATS_PLACES + _STATS_OWN_PLACES)
    for field in ("top_locations_by_size", "top_locations_by_count"):
        places = [place for place in getattr(statistics, field) if not is_own_code(place[0][1])]
        setattr(statistics, field, places[:_STATS_PLACES])
    for field in ("top_modules_by_allocation_size", "top_modules_by_allocation_count"):
        modules = [module for module in getattr(statistics, field) if module[0] != PACKAGE_NAME]
        setattr(statistics, field, modules[:_STATS_PLACES])
    with contextlib.redirect_stdout(text):
        reporter_module.StatsReporter(statistics, _STATS_PLACES).render()
    _write_lines(text.getvalue(), out)


_REPORTS: dict[str, Callable[[View, str, TextIO], None]] = {
    "flamegraph": _html,
    "table": _html,
    "tree": _tree,
    "summary": _summary,
    "stats": _stats,
}


def _write_lines(text: str, out: TextIO) -> None:
    out.writelines(f"{printable(line.expandtabs(4).rstrip())}\n" for line in text.rstrip().split("\n"))
