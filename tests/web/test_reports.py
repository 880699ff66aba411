"""pyinstrument's page, rendered from the stored session."""

from __future__ import annotations

import html.parser
import json
import re
import sys
from typing import Any

import pytest
from web_support import Site, assert_problem, profile_artifact, session_of

from dramatiq_diag.errors import StoreUnavailableError
from dramatiq_diag.reports import ReportError
from dramatiq_diag.reports.pyinstrument import render_session

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


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=ascii)
def test_hostile_names_are_inert_and_come_out_as_they_went_in(name: str) -> None:
    harmless = Scripts(render_session(json.dumps(session_of("f")).encode()).decode())
    session = session_of(name, "second", file=f"/srv/{name}/jobs.py", target=f"Task {name}: {name}")
    page = render_session(json.dumps(session).encode()).decode()
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


def test_a_page_is_rendered_once_and_kept_beside_its_blob(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    path = site.publish_one(profile_artifact())
    blob = site.blob(path)
    assert [file.name for file in blob.parent.iterdir()] == [blob.name]
    first = site.get(path)
    assert b"crunch_numbers" in first.content
    assert blob.with_name(f"{blob.name}.rendered").read_bytes() == first.content
    monkeypatch.setitem(sys.modules, "pyinstrument.session", None)
    assert site.get(path).content == first.content


def test_a_kept_page_that_a_power_cut_emptied_is_rendered_again(site: Site) -> None:
    path = site.publish_one(profile_artifact())
    first = site.get(path)
    rendered = site.blob(path).with_name(f"{site.blob(path).name}.rendered")
    rendered.write_bytes(b"")
    assert site.get(path).content == first.content
    assert rendered.read_bytes() == first.content


def test_a_blob_directory_that_cannot_be_written_serves_all_the_same(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise StoreUnavailableError("The blob directory cannot be written: Read-only file system")

    path = site.publish_one(profile_artifact())
    monkeypatch.setattr("dramatiq_diag.blobs.BlobStore._write", refuse)
    for _ in range(2):
        result = site.get(path, headers={"Range": "bytes=-10"})
        assert (result.status_code, len(result.content)) == (206, 10)
    assert "Read-only" in caplog.text


def test_without_pyinstrument_the_answer_says_how_to_get_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    path = site.publish_one(profile_artifact())
    monkeypatch.setitem(sys.modules, "pyinstrument.session", None)
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
    with pytest.raises(ReportError):
        render_session(stored)


def test_an_empty_profile_is_a_page(site: Site) -> None:
    path = site.publish_one(profile_artifact(json.dumps(session_of() | {"frame_records": []}).encode()))
    assert site.get(path).status_code == 200


def test_a_stored_form_of_another_version_is_a_clear_error(site: Site) -> None:
    path = site.publish_one(profile_artifact())
    site.change(path, stored_as="pyinstrument.session.v2")
    assert "cannot render 'pyinstrument.session.v2'" in assert_problem(site.get(path), 500)


def test_a_session_too_large_to_render_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dramatiq_diag.reports.downloads._MAX_STORED_BYTES", 100)
    assert "100 bytes" in assert_problem(site.get(site.publish_one(profile_artifact())), 500)
