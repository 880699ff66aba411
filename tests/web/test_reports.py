"""pyinstrument's page, rendered from the stored session."""

from __future__ import annotations

import html.parser
import io
import json
import os
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dramatiq_diag.reports.errors import ReportError
from dramatiq_diag.reports.process import RenderProcess
from dramatiq_diag.reports.pyinstrument import render_session
from dramatiq_diag.reports.queue import RenderQueue
from support.web import Site, assert_problem, profile_artifact, session_of

pytest.importorskip("pyinstrument")

HOSTILE_NAMES = [
    # What ends a script element.
    "</script><script>pwned()</script>",
    "</SCRIPT\t>",
    "</",
    # What changes how its end is found.
    "<!--<script>",
    "<!-- -->",
    "<![CDATA[",
    # What ends a JavaScript string, template or comment.
    "\"'`${pwned()}\\",
    "*/ pwned() //",
    "a\u2028b\u2029c\r\n",
    # What is no text.
    "\ud800",
    "a\\u003c/script>",
]


class Scripts(html.parser.HTMLParser):
    """Collects the scripts of a page the way a browser delimits them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.tags: list[str] = []
        self._inside = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self._inside = tag == "script"
        if self._inside:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts[-1] += data


def _strings(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set().union(*map(_strings, value.values()))
    if isinstance(value, list):
        return set().union(*map(_strings, value))
    return {value} if isinstance(value, str) else set()


def rendered(tmp_path: Path, session: dict[str, Any]) -> str:
    stored = tmp_path / "session.json"
    stored.write_text(json.dumps(session))
    page = io.BytesIO()
    render_session(str(stored), page)
    return page.getvalue().decode()


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=ascii)
def test_hostile_names_are_inert_and_come_out_as_they_went_in(tmp_path: Path, name: str) -> None:
    harmless = Scripts(rendered(tmp_path, session_of("f")))
    session = session_of(name, "second", file=f"/srv/{name}/jobs.py", target=f"Task {name}: {name}")
    page = rendered(tmp_path, session)
    found = Scripts(page)
    assert found.tags == harmless.tags
    assert len(found.scripts) == len(harmless.scripts)
    match = re.search(r"const sessionData = (.*);\s+pyinstrumentHTMLRenderer", found.scripts[-1], re.DOTALL)
    assert match is not None
    assert re.search(r"<[/!]", match[1]) is None
    shown = name.replace("\ud800", "?")
    strings = _strings(json.loads(match[1].replace("\ud800", "?")))
    assert f"Task {name}: {name}" in strings or f"Task {shown}: {shown}" in strings
    assert any(text.startswith(f"{shown}\0/srv/{shown}/jobs.py") for text in strings)


@pytest.fixture
def without_pyinstrument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Lets the processes that render come upon a pyinstrument that cannot be imported."""

    def apply() -> None:
        (tmp_path / "pyinstrument.py").write_text("raise ImportError('No module named pyinstrument')")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)

    return apply


def test_a_page_is_rendered_once_and_kept_in_the_cache(site: Site, without_pyinstrument: Callable[[], None]) -> None:
    path = site.publish_one(profile_artifact())
    blob = site.blob(path)
    assert [file.name for file in blob.parent.iterdir()] == [blob.name]
    first = site.get(path)
    assert b"crunch_numbers" in first.content
    assert [file.read_bytes() for file in site.cached(path)] == [first.content]
    assert [file.name for file in blob.parent.iterdir()] == [blob.name]
    without_pyinstrument()
    assert site.get(path).content == first.content


def test_a_kept_page_that_a_power_cut_emptied_is_rendered_again(site: Site) -> None:
    path = site.publish_one(profile_artifact())
    first = site.get(path)
    [rendered] = site.cached(path)
    rendered.write_bytes(b"")
    assert site.get(path).content == first.content
    assert rendered.read_bytes() == first.content


def test_a_cache_that_cannot_be_written_serves_all_the_same(
    make_site: Callable[..., Site], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a file").touch()
    site = make_site(cache_dir=tmp_path / "a file")
    path = site.publish_one(profile_artifact())
    for _ in range(2):
        result = site.get(path, headers={"Range": "bytes=-10"})
        assert (result.status_code, len(result.content)) == (206, 10)
    assert "is not kept" in caplog.text


def test_without_pyinstrument_the_answer_says_how_to_get_it(
    site: Site, without_pyinstrument: Callable[[], None]
) -> None:
    path = site.publish_one(profile_artifact())
    without_pyinstrument()
    assert "pip install 'dramatiq_diag[pyinstrument]'" in assert_problem(site.get(path), 503)


DAMAGED = [
    # No JSON.
    b"",
    b"\0",
    b"{",
    b"\xff\xfe",
    b"[" * 100_000,
    # No session.
    b"null",
    b"[]",
    b"42",
    b"{}",
    b'{"frame_records": null}',
    json.dumps(session_of("f") | {"frame_records": [["not", "a", "record"]]}).encode(),
    json.dumps(session_of("f") | {"frame_records": [[[1, 2], 1.0]]}).encode(),
    json.dumps(session_of("f") | {"start_call_stack": None}).encode(),
    # Deeper than Python goes.
    json.dumps(session_of("f") | {"frame_records": [[["f\0g\x001"] * 5000, 1.0]]}).encode(),
]


@pytest.mark.parametrize("stored", DAMAGED, ids=lambda stored: ascii(stored)[:40])
def test_a_damaged_session_is_a_clear_error(site: Site, stored: bytes) -> None:
    path = site.publish_one(profile_artifact(stored))
    assert "cannot be rendered" in assert_problem(site.get(path), 500)


def test_an_empty_profile_is_a_page(site: Site) -> None:
    path = site.publish_one(profile_artifact(json.dumps(session_of() | {"frame_records": []}).encode()))
    assert site.get(path).status_code == 200


def test_a_stored_format_of_another_version_is_a_clear_error(site: Site) -> None:
    path = site.publish_one(profile_artifact())
    site.change(path, stored_as="pyinstrument.session.v2")
    assert "cannot render 'pyinstrument.session.v2'" in assert_problem(site.get(path), 500)


def test_a_session_too_large_to_render_is_refused(tmp_path: Path) -> None:
    large = tmp_path / "large.session.json"
    with large.open("wb") as file:
        file.truncate(64 * 1024**2 + 1)  # It takes no space on the disk.
    with pytest.raises(ReportError, match="over 67108864 bytes"):
        render_session(str(large), io.BytesIO())


@pytest.fixture
def limited_site(make_site: Callable[..., Site]) -> Callable[..., Site]:
    """Makes a site whose renderings have other limits."""

    def make(**limits: Any) -> Site:
        return make_site({"make_queue": partial(RenderQueue, make_process=partial(RenderProcess, **limits))})

    return make


def test_a_rendering_that_takes_too_long_is_given_up(limited_site: Callable[..., Site]) -> None:
    site = limited_site(timeout_s=0.001)
    path = site.publish_one(profile_artifact())
    assert "given up after 0.001 s" in assert_problem(site.get(path), 500)
    assert site.cached(path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux alone")
def test_a_rendering_that_takes_too_much_memory_is_a_clear_error(limited_site: Callable[..., Site]) -> None:
    site = limited_site(max_memory_bytes=4 * 1024**2)
    path = site.publish_one(profile_artifact())
    assert "within 4 MiB of memory" in assert_problem(site.get(path), 500)
