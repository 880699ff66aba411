"""Pages as a browser gets them, and a run that is hostile in all that it says."""

from __future__ import annotations

import html.parser
from datetime import timedelta
from typing import Any

from falcon.testing import Result

from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from support import PATIENCE_S, eventually
from support.web import FIRST_START, Site, artifact, memory_artifact, profile_artifact

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
HOSTILE = "\"'><script>pwned()</script><img src=x onerror=pwned()>{{ 7*7 }}</title></pre></script><!--"


#: Longest wait for something in a browser, in milliseconds; no test waits it out.
PATIENCE_MS = PATIENCE_S * 1000


def expect_width(page: Any, width: int) -> None:
    """Waits until the page is no wider than its window, in CSS pixels, and its content, which could scroll, neither."""
    widest = """Math.max(document.documentElement.scrollWidth,
        ...[...document.querySelectorAll("main, main ul, main table")].map(each => each.scrollWidth))"""
    eventually(lambda: page.evaluate(widest) <= width, f"{page.url} is at most {width} pixels wide")


class Page(html.parser.HTMLParser):
    """A page's elements with their attributes, and its text."""

    def __init__(self, result: Result) -> None:
        super().__init__()
        assert result.headers["content-type"] == "text/html; charset=utf-8"
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(result.text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.elements if found == tag]

    def links(self) -> list[str]:
        return [str(attributes["href"]) for attributes in self.all("a") if "href" in attributes]


def page_of(site: Site, path: str, status: int = 200, **options: Any) -> Page:
    result = site.get(path, headers={"Accept": BROWSER}, **options)
    assert result.status_code == status, result.text
    return Page(result)


def publish_hostile(site: Site) -> str:
    log = artifact("task_logs", HOSTILE.encode(), filename="task.log", media_type="text/plain")
    odd = artifact("other", b"x", filename="a.bin", media_type="application/x-thing")
    missing = profile_artifact(status=ArtifactStatus.FAILED, reason=HOSTILE)
    run_id = site.publish(
        HOSTILE,
        [log, odd, missing, memory_artifact()],
        actor_name=HOSTILE,
        queue_name=HOSTILE,
        hostname=HOSTILE,
        release=HOSTILE,
        status=RunStatus.FAILED,
        exception_type=HOSTILE,
        exception_message=HOSTILE,
        exception_traceback=HOSTILE,
        overlapped_task_ids=[HOSTILE, "beside"],
    )
    site.publish("beside", actor_name=HOSTILE, started_at=FIRST_START + timedelta(seconds=1))
    site.publish(f"child {HOSTILE}", actor_name=HOSTILE, hostname=HOSTILE, parent_run_id=run_id)
    return str(run_id)
