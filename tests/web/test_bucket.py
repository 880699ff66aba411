"""Downloads and reports of artifacts that are in a bucket."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import update

from dramatiq_diag.reports.cache import blob_name_of
from dramatiq_diag.store.models import Artifact
from support import PATIENCE_S
from support.web import MEMORY, Site, artifact, id_in, memory_artifact, memray_artifact, profile_artifact


@pytest.fixture
def site(make_site: Callable[..., Site], s3_bucket: str) -> Site:
    return make_site(blob_url=s3_bucket)


@pytest.fixture
def redirecting(make_site: Callable[..., Site], s3_bucket: str) -> Site:
    return make_site(blob_url=s3_bucket, download_redirect=True)


def blob_of(site: Site, path: str) -> str:
    with site.store.session() as session:
        row = session.get(Artifact, id_in(path))
    assert row is not None
    return blob_name_of(row)


def test_a_download_streams_through_the_app_in_whole_and_in_part(site: Site) -> None:
    data = bytes(range(256)) * 40_000
    path = site.publish_one(memray_artifact(data))

    whole, part = site.get(path), site.get(path, headers={"Range": "bytes=9000000-9000009"})

    assert (whole.status_code, whole.content) == (200, data)
    assert (part.status_code, part.content) == (206, data[9_000_000:9_000_010])
    assert part.headers["content-range"] == f"bytes 9000000-9000009/{len(data)}"
    head = site.client.simulate_head(path)
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(data)))


def test_a_report_is_rendered_from_a_copy_in_the_cache_and_served_from_there(site: Site) -> None:
    path = site.publish_one(profile_artifact())

    first = site.get(path)

    assert first.status_code == 200
    assert b"crunch_numbers" in first.content
    assert sorted(file.name.rpartition(".")[2] for file in site.cached(path)) == ["html", "source"]
    assert site.get(path).content == first.content
    assert site.get(f"{path}&format=text").status_code == 200


def test_a_download_is_redirected_with_the_headers_that_the_app_would_send(redirecting: Site) -> None:
    path = redirecting.publish_one(memory_artifact())
    direct = redirecting.client.simulate_head(path)

    answer = redirecting.get(path)

    assert answer.status_code == 302
    assert answer.headers["cache-control"] == "no-store"
    request = urllib.request.Request(answer.headers["location"], headers={"Range": "bytes=0-3"})
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as found:
        assert (found.status, found.read()) == (206, MEMORY[:4])
        for name in ("content-type", "content-disposition"):
            assert found.headers[name] == direct.headers[name]
    assert direct.status_code == 200


def test_pages_and_what_is_rendered_are_not_redirected(redirecting: Site) -> None:
    page = artifact("page", b"<script>1</script>", filename="page.html", media_type="text/html")
    for record in (profile_artifact(), page):
        answer = redirecting.get(redirecting.publish_one(record))
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"].startswith("sandbox")
    memory = redirecting.publish_one(memory_artifact())
    assert redirecting.get(f"{memory}&format=csv").status_code == 200


def test_signature_and_state_are_judged_before_a_redirect(redirecting: Site) -> None:
    path = redirecting.publish_one(memory_artifact())
    assert redirecting.get(path.replace("signature=", "signature=x")).status_code == 403

    redirecting.store.blobs.delete([blob_of(redirecting, path)])
    assert redirecting.get(path).status_code == 410

    with redirecting.store.session() as session:
        session.execute(update(Artifact).values(status="expired", reason="Removed."))
    assert redirecting.get(path).status_code == 410
    assert redirecting.get(path.replace("signature=", "signature=x")).status_code == 403


def test_a_directory_never_redirects(make_site: Callable[..., Site]) -> None:
    site = make_site(download_redirect=True)
    assert site.get(site.publish_one(memory_artifact())).content == MEMORY


def test_a_row_with_a_name_that_is_not_ours_is_gone(redirecting: Site) -> None:
    path = redirecting.publish_one(replace(memory_artifact(), name="other"))
    with redirecting.store.session() as session:
        session.execute(update(Artifact).values(blob_name="../other"))
    assert redirecting.get(path).status_code == 410
