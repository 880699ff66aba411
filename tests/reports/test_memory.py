"""Memory profiles made visible, and the charts that pages are made of."""

from __future__ import annotations

import csv
import io
import json
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dramatiq_diag.collectors.memory import HEADER
from dramatiq_diag.errors import NotInstalledError
from dramatiq_diag.reports import charts, memory
from dramatiq_diag.reports.cache import format_of, open_download
from dramatiq_diag.reports.charts import config, history_chart, memory_chart, resources_chart
from dramatiq_diag.reports.charts.history import _COLOURS
from dramatiq_diag.reports.errors import ReportError
from dramatiq_diag.reports.formats import FORMATS
from dramatiq_diag.reports.memory import read_samples
from dramatiq_diag.statuses import RunStatus
from dramatiq_diag.store.attempts import Attempt
from dramatiq_diag.store.memory_curves import thin
from dramatiq_diag.text import MIB

HOSTILE = "</script><script>pwned()</script>'+pwned()+'\"`${pwned()}<!--<script>\\\u2028"


def log(*samples: tuple[float, float], end: str = "") -> bytes:
    """A log of seconds and megabytes."""
    return "".join((HEADER, *(f"{second:.3f}\t{megabytes:.3f}\n" for second, megabytes in samples), end)).encode()


def samples_of(data: bytes) -> list[memory.Sample]:
    return read_samples(io.BytesIO(data))


def in_process(render: Any, tmp_path: Path, data: bytes) -> bytes:
    path, target = tmp_path / "memory.datum", io.BytesIO()
    path.write_bytes(data)
    render(str(path), target)
    return target.getvalue()


# Reading.


@pytest.mark.parametrize(
    "end",
    [
        "",
        # Torn: a number without its end may be a shorter one than was written.
        "4.000\t12",
        "4.000",
        "4",
        "\0" * 1000,
        # Garbage.
        "\n\n",
        "nan\tinf\n",
        "-1\t5\n",
        "4.0\t5.0\t6.0\n",
        "1_0\t1_0\n",
        "\N{ARABIC-INDIC DIGIT FOUR}\t5\n",
        f"{'9' * 1000}\t{'9' * 1000}\n",
        "x" * 100_000,
        HEADER,
    ],
    ids=lambda end: ascii(end)[:30],
)
def test_what_is_no_line_of_a_log_is_passed_over(end):
    assert samples_of(log((0, 10), (2, 20.5), end=end)) == [(0, 10 * MIB), (2, int(20.5 * MIB))]


def test_lines_behind_garbage_are_read():
    data = b"\xff\xfe\0\n" + log((0, 10)) + b"\x00\x01\n" + log((4, 30), (2, 20))

    assert [second for second, _ in samples_of(data)] == [0, 2, 4]


def test_what_the_collector_writes_is_read_whole(bench, settings, stored):
    given = settings(task_diagnostics=["memory"])
    with bench(given) as tasks:
        task_id = tasks.run(lambda: None, actor_name="work")

    data = stored(given).data(task_id, "memory_profile")

    assert len(samples_of(data)) == data.count(b"\n") - 1 >= 2
    peak_bytes = max(size_bytes for _, size_bytes in samples_of(data))
    assert peak_bytes == pytest.approx(stored(given).runs(task_id)[0].peak_rss_bytes, abs=MIB / 1000)


# Thinning.


@pytest.mark.parametrize("count", [4, 5, 60, 2000])
@pytest.mark.parametrize("peak_at", [0, 1, 77_777, 99_998, 99_999])
def test_thinning_keeps_the_peak_the_least_and_both_ends(count, peak_at):
    samples = [(float(second), 100 + second % 7) for second in range(100_000)]
    samples[peak_at] = (float(peak_at), 1000)
    samples[55_555] = (55_555.0, 1)

    thinned = thin(samples, count)

    assert len(thinned) <= count
    assert thinned == sorted(thinned)
    assert (thinned[0], thinned[-1]) == (samples[0], samples[-1])
    assert {samples[peak_at], samples[55_555]} <= {*thinned}


def test_few_samples_are_all_kept():
    assert thin([(0.0, 1), (1.0, 2)], 4) == [(0.0, 1), (1.0, 2)]
    assert thin([], 4) == []


# The forms, each rendered by its process.


@pytest.fixture
def profile(bench, settings, stored):
    """A reader of a store and the id of a task with a log of known samples."""
    given = settings(task_diagnostics=["memory"])
    with bench(given) as tasks:
        task_id = tasks.run(lambda: None, actor_name="work")
    reader = stored(given)
    reader.path(task_id, "memory_profile").write_bytes(log((0, 50), (2, 150), (4, 75)))
    return reader, task_id


def download(reader: Any, task_id: str, name: str) -> bytes:
    artifact = reader.artifacts(task_id)["memory_profile"]
    with open_download(reader.store, artifact, format_of(artifact, name)) as file:
        return file.read()


def test_a_plain_download_is_the_log_itself(profile):
    reader, task_id = profile
    artifact = reader.artifacts(task_id)["memory_profile"]

    assert [*FORMATS["memory.datum"]] == ["datum", "csv", "svg", "png", "html", "chart"]
    assert (format_of(artifact).name, format_of(artifact).render) == ("datum", None)


def test_csv_has_units_in_its_names(profile):
    rows = [*csv.DictReader(io.StringIO(download(*profile, "csv").decode()))]

    assert rows[1] == {"seconds": "2.000", "rss_bytes": str(150 * MIB)}


def test_pictures_are_drawn_with_the_peak_named(profile):
    pytest.importorskip("vl_convert")

    drawn = download(*profile, "svg").decode()

    assert drawn.startswith("<svg")
    assert "peak 150.0 MiB" in drawn
    assert "Seconds since task start" in drawn
    assert download(*profile, "png").startswith(b"\x89PNG")


def test_a_page_asks_nothing_of_another_host_and_draws_its_chart(profile, tmp_path, dump_dom):
    pytest.importorskip("vl_convert")
    page = tmp_path / "memory.html"
    page.write_bytes(download(*profile, "html"))

    elements = dump_dom(page.as_uri())

    assert " src=" not in page.read_text().partition("<script>")[0]
    assert "peak 150.0 MiB" in elements.rpartition("<svg")[2]


def test_a_chart_is_a_specification_with_named_data(profile):
    chart = json.loads(download(*profile, "chart"))

    assert [row["megabytes"] for row in chart["datasets"]["samples"]] == [50, 150, 75]
    assert chart["datasets"]["bands"] == []


def test_a_chart_of_a_long_run_has_few_points_and_its_peak(tmp_path):
    samples = [(float(second), 50.0) for second in range(50_000)]
    samples[33_333] = (33_333.0, 99.0)

    chart = json.loads(in_process(memory.render_chart, tmp_path, log(*samples)))

    points = chart["datasets"]["samples"]
    assert len(points) <= 2000
    assert max(point["megabytes"] for point in points) == 99


@pytest.mark.parametrize("data", [b"", HEADER.encode(), b"\0" * 100, b"0.000\t1"], ids=ascii)
@pytest.mark.parametrize("name", ["csv", "svg", "png", "html", "chart"])
def test_a_log_without_a_sample_is_a_clear_error(tmp_path, name, data):
    render = FORMATS["memory.datum"][name].render
    if name not in ("csv", "chart"):
        pytest.importorskip("vl_convert")

    with pytest.raises(ReportError, match="no sample"):
        in_process(render, tmp_path, data)


@pytest.mark.parametrize("name", ["svg", "png", "html"])
def test_without_its_package_a_picture_says_what_to_install(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, "vl_convert", None)

    with pytest.raises(NotInstalledError, match=r"pip install 'dramatiq_diag\[web\]'"):
        in_process(FORMATS["memory.datum"][name].render, tmp_path, log((0, 1)))


# Charts.


def run(number: int, **fields: Any) -> Attempt:
    values = {
        "run_id": uuid.UUID(int=number),
        "task_id": f"task-{number}",
        "actor_name": "work",
        "status": "succeeded",
        "started_at": datetime(2026, 11, 22, 13, number, 33, 229586, tzinfo=UTC),
        "duration_ms": 100.0 + number,
        "peak_rss_bytes": number * MIB,
    }
    made = Attempt(**values | fields)
    made.attempt = 1
    return made


def href(run: Attempt) -> str:
    return f"/runs/{run.run_id.int}/"


CURVE = [(float(second), (50 + second) * MIB) for second in range(20)]
BANDS: list[Any] = [{"start_s": 2.0, "end_s": 5.0, "label": HOSTILE}]

CHARTS = {
    "one curve": memory_chart([("first", CURVE)], BANDS, width=600),
    "two curves": memory_chart([(HOSTILE, CURVE), ("second", CURVE[5:])], width=600),
    "two curves of one name": memory_chart([("run", CURVE), ("run", CURVE)], width=600),
    "one sample": memory_chart([("first", CURVE[:1])], width=600),
    "an empty curve": memory_chart([("first", CURVE), ("second", [])], width=600),
    "no curve": memory_chart([], width=600),
    "in a page": memory_chart([("first", CURVE)]),
    "a picture": memory_chart([(HOSTILE, CURVE)], BANDS, width=600, interactive=False),
    "history": history_chart(
        [
            run(1, status="failed", task_id=HOSTILE),
            run(2, status="running", duration_ms=None),
            run(3, peak_rss_bytes=None),
        ],
        href,
    ),
    "no history": history_chart([], href),
    "resources": resources_chart([{"elapsed_seconds": float(at), "open_files": 3.0 + at} for at in range(4)]),
    "no resources": resources_chart([]),
}


@pytest.mark.parametrize("name", CHARTS)
@pytest.mark.parametrize("dark", [False, True])
def test_every_chart_is_drawn(name, dark):
    vl_convert = pytest.importorskip("vl_convert")

    drawn = vl_convert.vegalite_to_svg(json.dumps(CHARTS[name]), config=config(dark), allowed_base_urls=[])

    assert "<svg" in drawn


@pytest.mark.parametrize("name", CHARTS)
def test_names_are_data_and_nothing_else(name):
    without_data = {key: value for key, value in CHARTS[name].items() if key != "datasets"}

    assert "pwned" not in json.dumps(without_data)


def test_the_tooltip_of_two_curves_tells_both():
    moments = CHARTS["two curves"]["datasets"]["moments"]

    assert moments[0] == {"seconds": 0, "megabytes": 50, "a_mb": 50, "b_mb": 55}
    assert (moments[-1]["a_mb"], moments[-1]["b_mb"]) == (69, 69)


def test_a_curve_that_hardly_moves_is_not_flattened_and_one_that_grows_begins_at_zero():
    def lowest(*sizes: int) -> float:
        chart = memory_chart([("run", [(float(number), size * MIB) for number, size in enumerate(sizes)])])
        scales = [layer["encoding"].get("y", {}).get("scale") for layer in chart["layer"]]
        return float(next(filter(None, scales))["domain"][0])

    assert lowest(1000, 1010) > 900
    assert lowest(100, 900) == 0


def test_a_history_knows_every_status_and_opens_the_runs_it_is_told():
    chart = history_chart([run(1)], href)

    assert {*_COLOURS} == {*map(str, RunStatus)}
    assert chart["datasets"]["runs"][0]["href"] == "/runs/1/"


def test_the_axis_of_runs_that_are_close_together_has_times_with_minutes():
    vl_convert = pytest.importorskip("vl_convert")

    drawn = vl_convert.vegalite_to_svg(json.dumps(history_chart([run(1)], href)), config=config(dark=False))

    assert ">13:02<" in drawn  # The run is of 13:01:33.229.
    assert ".229<" not in drawn


def test_hostile_names_cannot_end_the_element_of_a_page():
    text = memory.in_json_script({HOSTILE: [HOSTILE]})

    assert "<" not in text
    assert json.loads(text) == {HOSTILE: [HOSTILE]}


def test_the_scripts_of_a_page_cannot_end_their_element():
    pytest.importorskip("vl_convert")

    script = charts.bundle()

    assert "vegaEmbed" in script
    assert "</script" not in script.lower()
