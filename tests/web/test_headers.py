"""What every answer tells a browser to keep other sites from."""

from __future__ import annotations

import pytest
from falcon.testing import Result

from support.web import Site, memory_artifact, path_of, profile_artifact


@pytest.fixture
def answers(site: Site) -> dict[str, Result]:
    site.publish("task-1", [memory_artifact(), profile_artifact()])
    document = site.get("/tasks/task-1/profile_artifacts/").json
    ids = {artifact["name"]: artifact["artifact_id"] for artifact in document["artifacts"]}
    html = {"Host": "localhost", "Accept": "text/html"}
    return {
        "document": site.get("/tasks/"),
        "page": site.get("/tasks/task-1/", headers=html),
        "problem": site.get("/nowhere"),
        "problem page": site.get("/nowhere", headers=html),
        "text": site.get(path_of(document["urls"]["memory_profile"])),
        "profile": site.get(path_of(document["urls"]["pyinstrument_profile"])),
        "report": site.get(f"/artifacts/{ids['pyinstrument_profile']}/reports/html"),
        "health": site.get("/healthz"),
        "static": site.get("/static/style.css"),
    }


def test_no_other_site_frames_opens_or_embeds_anything(answers: dict[str, Result]) -> None:
    for name, answer in answers.items():
        assert answer.headers["x-frame-options"] == "SAMEORIGIN", name
        assert answer.headers["cross-origin-opener-policy"] == "same-origin", name
        embedded = "cross-origin" if name == "static" else "same-origin"
        assert answer.headers["cross-origin-resource-policy"] == embedded, name
        assert answer.headers["x-content-type-options"] == "nosniff", name


@pytest.mark.parametrize("name", ["page", "problem page", "text", "profile", "report"])
def test_pages_and_reports_are_framed_by_their_own_site_alone(answers: dict[str, Result], name: str) -> None:
    policy = answers[name].headers["content-security-policy"]
    assert "frame-ancestors 'self'" in policy
    assert ("sandbox" in policy) == (name in ("text", "profile", "report"))
