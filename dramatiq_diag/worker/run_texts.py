"""Reads from the spool what a running run has written so far: its memory curve, its resources, the end of its log."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

from ..spool.entry import Entry
from ..spool.follower import EntryFollower
from ..store.memory_curves import Sample, samples_in, thin

#: The most points of the memory curve, and the samples that are kept to choose them from.
MAX_POINTS = 500
_MAX_SAMPLES = 4 * MAX_POINTS

#: The most rows of the resources.
MAX_ROWS = 200

#: The size of the end of the log, in bytes.
MAX_LOG_BYTES = 16 * 1024


class RunTexts:
    """What is in the text artifacts of a run; it costs nothing before the first `read`."""

    def __init__(self, entry: Entry) -> None:
        self._follower = EntryFollower(entry)
        self._samples: list[Sample] | None = None
        self._columns: list[str] | None = None
        self._rows: list[list[float | None]] = []
        self._log: str | None = None
        self._log_is_cut = False

    def read(self) -> None:
        """Reads what was written since the last call."""
        texts: dict[str, list[str]] = {}
        for record in self._follower.records():
            name, text = record.get("to"), record.get("text")
            if isinstance(name, str) and isinstance(text, str):
                texts.setdefault(name, []).append(text)
        for name, add in (
            ("memory_profile", self._add_memory),
            ("resources_profile", self._add_resources),
            ("task_logs", self._add_log),
        ):
            if name in texts:
                add("".join(texts[name]))

    @property
    def memory(self) -> dict[str, Any] | None:
        """The memory curve; None where no sample was taken."""
        if not self._samples:
            return None
        return {"curve": [[round(second, 3), size] for second, size in thin(sorted(self._samples), MAX_POINTS)]}

    @property
    def resources(self) -> dict[str, Any] | None:
        """The table of the resources; None where there is none."""
        return None if self._columns is None else {"columns": self._columns, "rows": _thinned(self._rows)}

    @property
    def log(self) -> dict[str, Any] | None:
        """The end of the log; None where none is collected."""
        return None if self._log is None else {"text": self._log, "is_cut": self._log_is_cut}

    def _add_memory(self, text: str) -> None:
        samples = [*(self._samples or ()), *samples_in(io.BytesIO(text.encode()))]
        self._samples = thin(sorted(samples), _MAX_SAMPLES // 2) if len(samples) > _MAX_SAMPLES else samples

    def _add_resources(self, text: str) -> None:
        for cells in csv.reader(io.StringIO(text)):
            if self._columns is None:
                self._columns = cells
            elif len(cells) == len(self._columns):
                self._rows.append([_figure(cell) for cell in cells])
        if len(self._rows) > 4 * MAX_ROWS:
            self._rows = _thinned(self._rows, 2 * MAX_ROWS)

    def _add_log(self, text: str) -> None:
        whole = ((self._log or "") + text).encode("utf-8", "replace")
        end = whole[-MAX_LOG_BYTES:]
        if len(whole) > MAX_LOG_BYTES:
            self._log_is_cut = True
            end = end.partition(b"\n")[2] or end  # The first line is cut in two.
        self._log = end.decode("utf-8", "ignore")


def _thinned(rows: list[list[float | None]], count: int = MAX_ROWS) -> list[list[float | None]]:
    """Returns: At most *count* of the rows, evenly spread, the last one among them."""
    if len(rows) <= count:
        return rows
    return [rows[(at + 1) * len(rows) // count - 1] for at in range(count)]


def _figure(cell: str) -> float | None:
    try:
        figure = float(cell)
    except ValueError:
        return None
    return figure if math.isfinite(figure) else None
