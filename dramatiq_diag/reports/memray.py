"""What memray renders from a capture: of the task's own thread or of all, at the peak or of what was not freed."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, TextIO

from ..errors import NotInstalledError
from ..hook import TASK_THREAD
from ..printable import printable
from .errors import ReportError

#: The largest allocations that a tree is made of, and the lines of a summary.
_TREE_ALLOCATIONS = 200
_SUMMARY_ROWS = 50
#: Where Dramatiq calls the function of an actor.
_ACTOR_FILE = os.path.join("dramatiq", "actor.py")
#: The largest places that statistics name.
_STATS_PLACES = 10
#: A call whose allocations are a smaller part of all is left out of a tree.
_TREE_SHARE = 0.01


@dataclass(frozen=True, kw_only=True)
class View:
    """One of the reports of a capture."""

    report: str
    whole_process: bool = False
    "Whether of all threads; otherwise of the one that the task ran on."
    leaks: bool = False
    "Whether of what had not been freed when the capture ended; otherwise of what was held at the peak."

    @property
    def name(self) -> str:
        """The name of its form."""
        return self.report + ("-process" if self.whole_process else "") + ("-leaks" if self.leaks else "")

    @property
    def is_html(self) -> bool:
        """Whether it is a page; otherwise a text."""
        return self.report in ("flamegraph", "table")

    def render(self, path: str, target: BinaryIO) -> None:
        """Renders it.

        Parameters:
          path: The capture.
          target: Where the report is written.

        Raises:
          NotInstalledError: When memray is missing.
          ReportError: When it cannot read the capture.
        """
        with _errors():
            out = io.TextIOWrapper(target, "utf-8", errors="replace")
            _REPORTS[self.report](self, path, out)
            out.detach()  # Which writes what is left; the target is the caller's to close.


#: Statistics are memray's own, which are of the whole process.
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
        import memray  # noqa: F401 - all of this needs it.
    except ImportError as error:
        raise NotInstalledError(
            f"Rendering this needs memray, which is not installed ({error}): pip install 'dramatiq_diag[memray]'"
        ) from error
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        raise ReportError(
            f"The capture cannot be read ({error}); see `dramatiq-diag check`, and whether this machine has the Python "
            "and memray of the worker, or newer ones."
        ) from error


def _records(view: View, reader: Any) -> list[Any]:
    """Returns: The allocation records of the view."""
    # Threads are only told apart in records that were not merged over them.
    options = {"merge_threads": view.whole_process}
    if view.leaks:
        records = reader.get_leaked_allocation_records(**options)
    else:
        records = reader.get_high_watermark_allocation_records(**options)
    records = list(records)
    if view.whole_process:
        return records
    named = (record.tid for record in records if record.thread_name == TASK_THREAD)
    own = next(named, reader.metadata.main_thread_id)
    return [record for record in records if record.tid == own]


def peak_stacks(path: str, *, whole_process: bool) -> Iterator[tuple[list[tuple[str, str, int]], int]]:
    """Yields what was held at the peak, in bytes, with each stack, the outermost call first.

    What stands above the actor's function, which is Dramatiq's, is left out. Raises as `View.render` does.

    Parameters:
      path: The capture.
      whole_process: Whether of all threads; otherwise of the one that the task ran on.
    """
    with _errors():
        from memray import FileReader

        with FileReader(path) as reader:
            native = reader.metadata.has_native_traces
            for record in _records(View(report="tree", whole_process=whole_process), reader):
                stack = [*(record.hybrid_stack_trace() if native else record.stack_trace())]
                yield _below_actor(stack[::-1]), record.size


def _below_actor(stack: list[tuple[str, str, int]]) -> list[tuple[str, str, int]]:
    for depth, (function, file, _) in enumerate(stack):
        if function in ("__call__", "Actor.__call__") and file.endswith(_ACTOR_FILE):
            return stack[depth + 1 :]
    return stack


def _html(view: View, path: str, out: TextIO) -> None:
    from memray import FileReader
    from memray.reporters.flamegraph import FlameGraphReporter
    from memray.reporters.table import TableReporter

    reporter_class: Any = FlameGraphReporter if view.report == "flamegraph" else TableReporter
    with FileReader(path) as reader:
        reporter = reporter_class.from_snapshot(
            _records(view, reader),
            memory_records=tuple(reader.get_memory_snapshots()),
            native_traces=reader.metadata.has_native_traces,
        )
        reporter.render(
            outfile=out,
            metadata=reader.metadata,
            show_memory_leaks=view.leaks,
            merge_threads=True,
            inverted=False,
            no_web=True,  # The scripts are in the page, and none is asked of another host.
        )


def _tree(view: View, path: str, out: TextIO) -> None:
    from memray import FileReader
    from memray.reporters.tree import TreeReporter

    with FileReader(path) as reader:
        native = reader.metadata.has_native_traces
        root = TreeReporter.from_snapshot(
            iter(_records(view, reader)), native_traces=native, biggest_allocs=_TREE_ALLOCATIONS
        ).data
    out.write(f"{_megabytes(root.value)} in {root.n_allocations} allocations\n")
    _write_branches(root, root.value, "", out)


def _write_branches(node: Any, whole_bytes: int, indent: str, out: TextIO) -> None:
    branches = sorted(node.children.values(), key=lambda branch: branch.value, reverse=True)
    shown = [branch for branch in branches if branch.value >= whole_bytes * _TREE_SHARE]
    for branch in shown:
        last = branch is shown[-1]
        function, file, line = branch.location
        out.write(
            f"{indent}{'└─ ' if last else '├─ '}{_megabytes(branch.value)} {printable(f'{function}  {file}:{line}')}\n"
        )
        _write_branches(branch, whole_bytes, indent + ("   " if last else "│  "), out)


def _summary(view: View, path: str, out: TextIO) -> None:
    from memray import FileReader
    from memray.reporters.summary import SummaryReporter

    with FileReader(path) as reader:
        native = reader.metadata.has_native_traces
        reporter = SummaryReporter.from_snapshot(_records(view, reader), native=native)
    whole_bytes = max(reporter.current_memory_size, 1)
    by_size = sorted(reporter.snapshot_data.items(), key=lambda item: item[1].total_memory, reverse=True)
    out.write(f"{'with calls':>14} {'share':>7} {'by itself':>14} {'allocations':>11}  function\n")
    for place, held in by_size[:_SUMMARY_ROWS]:
        figures = f"{_megabytes(held.total_memory):>14} {100 * held.total_memory / whole_bytes:>5.1f} %"
        figures += f" {_megabytes(held.own_memory):>14} {held.n_allocations:>11}"
        out.write(f"{figures}  {printable(f'{place.function}  {place.file}')}\n")


def _stats(_: View, path: str, out: TextIO) -> None:
    from memray._memray import compute_statistics
    from memray.reporters.stats import StatsReporter

    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        StatsReporter(compute_statistics(path, num_largest=_STATS_PLACES), _STATS_PLACES).render()
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


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1024**2:.3f} MB"
