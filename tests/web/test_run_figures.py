"""The figures of a run: one table for the pages and the commands."""

from __future__ import annotations

import pytest
from click.testing import Result

from dramatiq_diag.cli import main
from dramatiq_diag.documents.run_figures import LISTED_FIGURES, RUN_FIGURES, Figure
from support.cli import make_runner
from support.pages import page_of
from support.web import Site

HTML = {"Accept": "text/html"}


def command(site: Site, *arguments: str) -> Result:
    return make_runner().invoke(main, arguments, env={"DRAMATIQ_DIAG_DATA_DIR": str(site.settings.data_dir)})


def test_every_figure_is_shown_by_pages_and_commands_alike(site: Site) -> None:
    figures = {
        "duration_ms": 1.5,
        "queue_wait_ms": 4.5,
        "cpu_ms": 0.9,
        "run_queue_ms": 0.3,
        "gc_ms": 0.2,
        "throttled_ms": 0.1,
        "touched_bytes": 2 * 1024**2,
        "major_faults": 1234,
        "collection_ms": 2.5,
        "peak_rss_bytes": 3 * 1024**2,
    }
    a = site.publish("a", **figures)
    b = site.publish("b", **figures)

    of_one = (page_of(site, "/tasks/a/").text, command(site, "show", "a").stdout)
    of_many = (
        page_of(site, "/tasks/").text,
        page_of(site, "/actors/crunch/").text,
        page_of(site, f"/compare/?a={a}&b={b}").text,
        command(site, "tasks").stdout,
        command(site, "compare", "a", "b").stdout,
    )

    for figure in RUN_FIGURES:
        text = figure.show(figures[figure.field])
        assert text != "-"
        assert all(text in output for output in of_one), figure
        assert figure.label in of_one[0]
        if figure.meaning is not None:
            assert all(figure.meaning in " ".join(output.split()) for output in of_one), figure
    for figure, text in zip(LISTED_FIGURES, ("1.5 ms", "0.9 ms", "3.0 MiB"), strict=True):
        for output in of_many:
            assert text in output, figure
            assert str(figure.heading).lower() in output.lower(), figure


@pytest.mark.parametrize("figure", [figure for figure in RUN_FIGURES if figure.sort], ids=lambda figure: figure.field)
def test_the_list_is_sorted_by_a_figure_from_its_heading(site: Site, figure: Figure) -> None:
    for task_id, value in (("small", 1), ("large", 3)):
        site.publish(task_id, **{figure.field: value})

    runs = site.get("/tasks/", params={"sort": figure.sort}).json["runs"]

    assert [run["task_id"] for run in runs] == ["large", "small"]
    listed = site.get("/tasks/", headers=HTML).text
    if figure.is_listed:
        assert f"sort={figure.sort}" in listed
    else:
        assert f'<option value="{figure.sort}"' in listed

    # Then the list shows the figure that it is sorted by
    page = page_of(site, f"/tasks/?sort={figure.sort}")
    assert str(figure.heading) in page.text
    assert f'data-label="{figure.heading}"' in site.get(f"/tasks/?sort={figure.sort}", headers=HTML).text
    assert len(page.all("th")) <= 9
    output = command(site, "tasks", "--sort", str(figure.sort)).stdout
    assert str(figure.heading).upper() in output.splitlines()[0]
    assert output.index("large") < output.index("small")
