"""The files of artifacts, by signed URL."""

from __future__ import annotations

import hashlib
import logging
import time
import uuid
from collections.abc import Callable
from typing import Any, BinaryIO
from urllib.parse import parse_qs, quote, urlencode

import pytest

from dramatiq_diag.documents.signing import Signer
from dramatiq_diag.errors import BlobMissingError
from dramatiq_diag.maintenance.cleanup import Cleanup
from dramatiq_diag.reports.queue import RenderQueue
from dramatiq_diag.statuses import ArtifactStatus
from support.web import MEMORY, Site, artifact, assert_problem, memory_artifact, memray_artifact, profile_artifact


@pytest.fixture
def memory(site: Site) -> str:
    """The download path of a memory log."""
    return site.publish_one(memory_artifact())


@pytest.fixture
def profile(site: Site) -> str:
    """The download path of a rendered profile."""
    return site.publish_one(profile_artifact())


def test_a_download_is_the_file_with_its_headers(site: Site, memory: str) -> None:
    result = site.get(memory)
    assert (result.status_code, result.content) == (200, MEMORY)
    assert dict(result.headers) == {
        "content-type": "text/plain; charset=utf-8",
        "content-length": str(len(MEMORY)),
        "content-disposition": 'inline; filename="memory.datum"',
        "content-security-policy": "sandbox; default-src 'none'; frame-ancestors 'self'",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "vary": "Accept",
        "accept-ranges": "bytes",
        "etag": f'"{hashlib.sha256(MEMORY).hexdigest()}"',
        "cache-control": "private, no-cache",
        "referrer-policy": "same-origin",
        "x-content-type-options": "nosniff",
        "x-frame-options": "SAMEORIGIN",
    }


def test_head_has_the_same_headers_and_no_body(site: Site, memory: str, profile: str) -> None:
    for path in (memory, profile):
        result, head = site.get(path), site.client.simulate_head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert dict(head.headers) == dict(result.headers)
        whole = site.client.simulate_head(path, headers={"Range": "bytes=0-1"})
        assert (whole.status_code, dict(whole.headers)) == (200, dict(result.headers))


def test_a_capture_is_saved_and_not_shown(site: Site) -> None:
    result = site.get(site.publish_one(memray_artifact()))
    assert result.content == b"memray\0capture"
    assert result.headers["content-type"] == "application/octet-stream"
    assert result.headers["content-disposition"] == 'attachment; filename="memray.bin"'


def test_a_partial_artifact_can_be_downloaded(site: Site) -> None:
    record = memory_artifact(status=ArtifactStatus.PARTIAL, reason="The worker died.")
    assert site.get(site.publish_one(record)).content == MEMORY


def test_an_empty_file_is_empty(site: Site) -> None:
    path = site.publish_one(memory_artifact(b""))
    assert (site.get(path).status_code, site.get(path).content) == (200, b"")
    assert_problem(site.get(path, headers={"Range": "bytes=0-"}), 416)


@pytest.mark.parametrize(
    ("name", "media_type", "shown_as", "holds"),
    [
        ("html", "text/html; charset=utf-8", 'inline; filename="pyinstrument.html"', b"<html"),
        ("text", "text/plain; charset=utf-8", 'inline; filename="pyinstrument.txt"', b"crunch_numbers"),
        ("speedscope", "application/json", 'attachment; filename="pyinstrument.speedscope.json"', b"speedscope"),
        ("pprof", "application/octet-stream", 'attachment; filename="pyinstrument.pb.gz"', b"\x1f\x8b"),
        ("firefox", "application/json", 'attachment; filename="pyinstrument.firefox.json"', b"crunch_numbers"),
        ("session", "application/json", 'attachment; filename="pyinstrument.session.json"', b"frame_records"),
    ],
)
def test_a_profile_has_several_formats(
    site: Site, profile: str, name: str, media_type: str, shown_as: str, holds: bytes
) -> None:
    result = site.get(f"{profile}&format={name}")
    assert result.status_code == 200
    assert result.headers["content-type"] == media_type
    assert result.headers["content-disposition"] == shown_as
    assert holds in result.content
    assert "sandbox" in result.headers["content-security-policy"]
    head = site.client.simulate_head(f"{profile}&format={name}")
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(result.content)))
    part = site.get(f"{profile}&format={name}", headers={"Range": "bytes=5-9"})
    assert (part.status_code, part.content) == (206, result.content[5:10])


def test_an_unknown_format_is_refused(site: Site, memory: str, profile: str) -> None:
    assert assert_problem(site.get(f"{profile}&format=pdf"), 400) == (
        "pyinstrument_profile has no format 'pdf'; "
        "the formats are html, text, speedscope, pprof, firefox, calltree, session."
    )
    detail = assert_problem(site.get(f"{memory}&format=pdf"), 400)
    assert detail == "memory_profile has no format 'pdf'; the formats are datum, csv, svg, png, html, chart."


def test_a_format_does_not_take_the_place_of_a_signature(site: Site, profile: str) -> None:
    assert_problem(site.get(f"{profile.partition('?')[0]}?format=text"), 403)


def test_html_is_sandboxed(site: Site, profile: str) -> None:
    result = site.get(profile)
    assert result.headers["content-type"] == "text/html; charset=utf-8"
    assert result.headers["content-disposition"] == 'inline; filename="pyinstrument.html"'
    policy = result.headers["content-security-policy"].split("; ")
    assert {"sandbox allow-scripts", "default-src 'none'"} <= set(policy)
    assert "allow-same-origin" not in result.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("media_type", "shown_as"),
    [
        # What could run scripts, or be taken for it, is saved.
        ("image/svg+xml", "image/svg+xml"),
        ("application/xhtml+xml", "application/xhtml+xml"),
        ("text/xml", "text/xml; charset=utf-8"),
        # What is no media type is bytes.
        ("text/html\r\nSet-Cookie: a=b", "application/octet-stream"),
        ("", "application/octet-stream"),
        ("text/html; charset=utf-7", "application/octet-stream"),
    ],
)
def test_any_other_media_type_is_saved(site: Site, media_type: str, shown_as: str) -> None:
    result = site.get(site.publish_one(artifact("other", b"<svg/>", filename="a", media_type=media_type)))
    assert result.headers["content-type"] == shown_as
    assert result.headers["content-disposition"].startswith("attachment")
    assert result.headers["content-security-policy"].startswith("sandbox;")


@pytest.mark.parametrize(
    "filename",
    [
        'a"; filename="b.exe',
        "a\r\nSet-Cookie: x=1",
        "b\\c",
        "ünï.txt",
        "任务",
        "a;b=c",
        "per%cent",
        "../../etc/passwd",
        "..",
    ],
)
def test_a_filename_is_quoted_safely(site: Site, filename: str) -> None:
    record = artifact("other", b"x", filename=filename, media_type="text/plain")
    result = site.get(site.publish_one(record))
    assert result.content == b"x"
    disposition = result.headers["content-disposition"]
    assert disposition.count('"') == 2
    assert disposition.isascii()
    assert disposition.isprintable()
    assert filename == ".." or disposition.endswith(f"; filename*=UTF-8''{quote(filename, safe='')}")


@pytest.mark.parametrize(
    ("header", "expected", "content_range"),
    [
        ("bytes=2-5", MEMORY[2:6], f"bytes 2-5/{len(MEMORY)}"),
        ("bytes=20-", MEMORY[20:], f"bytes 20-{len(MEMORY) - 1}/{len(MEMORY)}"),
        ("bytes=-4", MEMORY[-4:], f"bytes {len(MEMORY) - 4}-{len(MEMORY) - 1}/{len(MEMORY)}"),
        ("bytes=0-9999", MEMORY, f"bytes 0-{len(MEMORY) - 1}/{len(MEMORY)}"),
    ],
)
def test_a_range_gets_its_part(site: Site, memory: str, header: str, expected: bytes, content_range: str) -> None:
    result = site.get(memory, headers={"Range": header})
    assert (result.status_code, result.content) == (206, expected)
    assert result.headers["content-range"] == content_range
    assert result.headers["content-length"] == str(len(expected))


@pytest.mark.parametrize("header", ["bytes=0-1,3-4", "bytes=5-2", "lines=1-2", "bytes=x-"])
def test_a_range_that_is_not_one_gets_the_whole(site: Site, memory: str, header: str) -> None:
    result = site.get(memory, headers={"Range": header})
    assert (result.status_code, result.content) == (200, MEMORY)
    assert "content-range" not in result.headers


def test_a_range_behind_the_end_is_not_satisfiable(site: Site, memory: str) -> None:
    result = site.get(memory, headers={"Range": "bytes=9999-"})
    assert_problem(result, 416)
    assert result.headers["content-range"] == f"bytes */{len(MEMORY)}"


def test_a_rendered_form_has_ranges_too(site: Site, profile: str) -> None:
    whole = site.get(profile).content
    part = site.get(profile, headers={"Range": "bytes=-10"})
    assert (part.status_code, part.content) == (206, whole[-10:])


def test_if_range_holds_only_for_the_same_file(site: Site, memory: str) -> None:
    etag = site.get(memory).headers["etag"]
    same = site.get(memory, headers={"Range": "bytes=0-1", "If-Range": etag})
    assert same.status_code == 206
    for other in ('"other"', f"W/{etag}", "Fri, 02 Jan 2026 03:04:05 GMT"):
        assert site.get(memory, headers={"Range": "bytes=0-1", "If-Range": other}).content == MEMORY


@pytest.mark.parametrize("template", ["{}", "W/{}", '"x", {}', "*", '"a" , W/{} , "b"'])
def test_a_file_that_the_client_has_is_not_sent_again(site: Site, memory: str, profile: str, template: str) -> None:
    for path in (memory, profile):
        etag = site.get(path).headers["etag"]
        headers = {"If-None-Match": template.format(etag), "Range": "bytes=99999999-"}
        for result in (site.get(path, headers=headers), site.client.simulate_head(path, headers=headers)):
            assert (result.status_code, result.content) == (304, b"")
            assert result.headers["etag"] == etag
            assert result.headers["cache-control"] == "private, no-cache"


def test_another_etag_gets_the_file(site: Site, memory: str) -> None:
    assert site.get(memory, headers={"If-None-Match": '"x", ""'}).status_code == 200


def test_the_etag_of_a_rendered_form_changes_with_its_bytes(site: Site, profile: str) -> None:
    first = site.get(profile)
    assert site.get(profile).headers["etag"] == first.headers["etag"]
    [rendered] = site.cached(profile)
    assert rendered.read_bytes() == first.content
    rendered.write_bytes(b"rendered by another version")
    second = site.get(profile)
    assert second.content == b"rendered by another version"
    assert second.headers["etag"] != first.headers["etag"]


def _altered(path: str, **changes: str | None) -> str:
    base, _, query = path.partition("?")
    values = {name: found[0] for name, found in parse_qs(query).items()} | changes
    return f"{base}?{urlencode({name: value for name, value in values.items() if value is not None})}"


@pytest.mark.parametrize(
    "changes",
    [
        # Missing.
        {"expires": None, "signature": None},
        {"expires": None},
        {"signature": None},
        # Forged.
        {"signature": ""},
        {"signature": "0" * 64},
        {"signature": "ü"},
        {"signature": "\0"},
        {"signature": "x" * 10_000},
        {"expires": "9999999999"},
        {"expires": "abc"},
        {"expires": "-1"},
        {"expires": "inf"},
        {"expires": "9" * 5000},
    ],
)
def test_a_forged_signature_is_refused(site: Site, memory: str, changes: dict[str, str | None]) -> None:
    assert_problem(site.get(_altered(memory, **changes)), 403)


def test_the_signature_is_judged_before_anything_else(site: Site, memory: str) -> None:
    query = memory.partition("?")[2]
    for path in (
        f"/artifacts/{uuid.uuid4()}/memory.datum",
        "/artifacts/nonsense/memory.datum",
        "/artifacts/..%2F..%2Fsecret.key/x",
        "/artifacts/x/y/z",
        memory.partition("?")[0].replace("memory.datum", "memray.bin"),
    ):
        assert_problem(site.get(path), 403)
        assert_problem(site.get(f"{path}?{query}"), 403)


def test_a_signature_ends(make_site: Callable[..., Site]) -> None:
    late_s = 0
    site = make_site({"clock": lambda: time.time() + late_s}, url_ttl=10)
    path = site.publish_one(memory_artifact())
    assert site.get(path).status_code == 200
    late_s = 12
    assert "has expired" in assert_problem(site.get(path), 403)


def test_a_signed_url_of_an_unknown_artifact_is_not_found(site: Site, memory: str) -> None:
    artifact_id = memory.split("/")[2]
    for id_, filename in (
        (str(uuid.uuid4()), "memory.datum"),
        ("nonsense", "memory.datum"),
        (artifact_id, "memray.bin"),
        (artifact_id, "Memory.datum"),
    ):
        assert_problem(site.get(Signer(site.settings).url_path(id_, filename)), 404)


def test_a_removed_artifact_is_gone_with_its_reason(make_site: Callable[..., Site]) -> None:
    site = make_site(orphan_protection_time=0, run_retention=10**9)
    path = site.publish_one(memory_artifact())
    Cleanup(site.store).run()
    assert "Removed by the cleanup" in assert_problem(site.get(path), 410)


def test_an_artifact_without_a_file_is_gone_with_its_reason(site: Site) -> None:
    record = memory_artifact(None, status=ArtifactStatus.FAILED, reason="It broke.")
    assert assert_problem(site.get(site.publish_one(record)), 410) == "It broke."


def test_a_missing_file_is_gone_and_the_log_names_the_remedy(
    site: Site, memory: str, profile: str, caplog: pytest.LogCaptureFixture
) -> None:
    for path in (memory, profile):
        caplog.clear()
        site.blob(path).unlink()
        assert_problem(site.get(path), 410)
        assert "dramatiq-diag check" in caplog.text
        assert path.split("/")[2] in caplog.text


def test_a_cleanup_in_between_is_no_reason_for_a_warning(
    make_site: Callable[..., Site], caplog: pytest.LogCaptureFixture
) -> None:
    class SlowQueue(RenderQueue):
        def open(self, *_: Any) -> BinaryIO:
            site.change(memory, status=ArtifactStatus.EXPIRED, reason="Removed just now.")
            raise BlobMissingError

    site = make_site({"make_queue": SlowQueue})
    memory = site.publish_one(memory_artifact())
    assert assert_problem(site.get(memory), 410) == "Removed just now."
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_file_that_was_cut_short_is_not_passed_off_as_whole(
    site: Site, memory: str, caplog: pytest.LogCaptureFixture
) -> None:
    site.blob(memory).write_bytes(MEMORY[:5])
    assert "damaged" in assert_problem(site.get(memory), 500)
    assert "dramatiq-diag check" in caplog.text


def test_a_symbolic_link_is_not_followed(site: Site, memory: str) -> None:
    secret = site.settings.data_dir / "secret"
    secret.write_bytes(MEMORY)
    site.blob(memory).unlink()
    site.blob(memory).symlink_to(secret)
    assert_problem(site.get(memory), 503)
