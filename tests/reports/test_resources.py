"""The table of the collector `resources` as a chart."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from dramatiq_diag.collectors.resources import HEADER
from dramatiq_diag.reports.errors import ReportError
from dramatiq_diag.reports.resources import MAX_ROWS, read_rows, render_chart

ROW = "1.000,0.500,0.250,10,2,1048576,2097152,7,3\n"


def chart_of(tmp_path: Path, table: str) -> dict[str, object]:
    path, target = tmp_path / "resources.csv", io.BytesIO()
    path.write_text(table)
    render_chart(str(path), target)
    return dict(json.loads(target.getvalue()))


def figures(chart: dict[str, object]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for row in chart["datasets"]["figures"]:  # type: ignore[index]
        found.setdefault(row["label"], []).append(row["value"])
    return found


def test_every_column_is_drawn_in_its_unit(tmp_path: Path) -> None:
    assert figures(chart_of(tmp_path, HEADER + ROW)) == {
        "user": [0.5],
        "system": [0.25],
        "voluntary": [10],
        "involuntary": [2],
        "read": [1],
        "written": [2],
        "files": [7],
        "threads": [3],
    }


def test_a_panel_without_a_figure_is_left_out(tmp_path: Path) -> None:
    chart = chart_of(tmp_path, HEADER + "1.000,0.500,0.250,,,,,7,3\n")

    assert [panel["encoding"]["y"]["title"] for panel in chart["vconcat"]] == [  # type: ignore[attr-defined]
        "CPU time (s)",
        "Files, threads",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "2.000,0.5",
        ROW.replace("1.000", "2.000").rstrip(),
        "a,b,c,d,e,f,g,h,i\n",
        "nan,1,1,1,1,1,1,1,1\n",
        "2.000,1,1,1,1,1,1,1,inf\n",
        "\n",
        f"{',' * 8}\n",
        "x" * 10_000,
    ],
    ids=lambda line: ascii(line)[:20],
)
def test_lines_that_are_torn_or_malformed_are_skipped(line: str) -> None:
    rows = read_rows(io.BytesIO((HEADER + ROW + line).encode()))

    assert [row["elapsed_seconds"] for row in rows] == [1.0]


def test_a_long_table_is_thinned_and_keeps_its_ends(tmp_path: Path) -> None:
    table = HEADER + "".join(f"{second}.000,{second}.0,0,0,0,0,0,1,1\n" for second in range(10 * MAX_ROWS))

    user = figures(chart_of(tmp_path, table))["user"]

    assert MAX_ROWS / 2 < len(user) <= MAX_ROWS + 1
    assert (user[0], user[-1]) == (0, 10 * MAX_ROWS - 1)


def test_a_table_without_a_row_is_a_clear_error(tmp_path: Path) -> None:
    for table in ("", HEADER, "other,columns\n1,2\n"):
        with pytest.raises(ReportError, match="no row"):
            chart_of(tmp_path, table)
