"""Reads the table of the collector `resources`, and renders it as a chart."""

from __future__ import annotations

import json
import math
from typing import BinaryIO

from .charts import resources_chart
from .errors import ReportError

#: The most rows in a chart.
MAX_ROWS = 1000

#: Longer lines are not rows of the table, in bytes.
_MAX_LINE_BYTES = 512

#: Column name -> cell of that row; None where the platform has no such figure.
Row = dict[str, float | None]


def read_rows(file: BinaryIO) -> list[Row]:
    """Returns: The rows of a table with their columns by name, without lines that are torn or malformed."""
    header = file.readline(_MAX_LINE_BYTES).decode("ascii", "replace").strip().split(",")
    rows = []
    while line := file.readline(_MAX_LINE_BYTES):
        cells = line.decode("ascii", "replace").rstrip("\n").split(",")
        if line.endswith(b"\n") and len(cells) == len(header):  # Without its end, the last number may be cut.
            try:
                row = {name: float(cell) if cell else None for name, cell in zip(header, cells, strict=True)}
            except ValueError:
                continue
            if row.get("elapsed_seconds") is not None and all(math.isfinite(cell or 0) for cell in row.values()):
                rows.append(row)
    return rows


def render_chart(path: str, target: BinaryIO) -> None:
    """Renders a table to a Vega-Lite specification. Raises: ReportError when it has no row."""
    with open(path, "rb") as file:
        rows = read_rows(file)
    if not rows:
        raise ReportError("The stored table of resources has no row; see `dramatiq-diag check`.")
    step = -(-len(rows) // MAX_ROWS)
    target.write(json.dumps(resources_chart([*rows[:-1:step], rows[-1]])).encode())
