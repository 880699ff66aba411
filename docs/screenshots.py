"""Makes the screenshots of the documentation: executes the demo, and opens its pages in Chromium.

Run it in the development environment; it needs Chromium.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from dramatiq_diag.demo import work
from dramatiq_diag.demo.run import Demo, demo_settings
from dramatiq_diag.settings import Settings
from dramatiq_diag.web.server import Server

_DIRECTORY = Path(__file__).parent
_ROUNDS = 4
#: A busy machine takes long to make the script of the charts, and to draw them.
_PATIENCE_MS = 300_000
_SIZE = {"width": 1180, "height": 760}


def _work(settings: Settings, base_url: str) -> None:
    """Executes the demo several times, each time with a little more work."""
    for number in range(_ROUNDS):
        sys.stderr.write(f"Round {number + 1} of {_ROUNDS}\n")
        work.fill_cache.__defaults__ = (60 + 15 * number,)
        work.index_sources.__defaults__ = (20 + 10 * number,)
        Demo(settings, base_url).run(lambda _: None)


def _shoot(page: Any, name: str) -> None:
    page.wait_for_timeout(500)  # Frames draw in their own time.
    page.screenshot(path=_DIRECTORY / f"{name}.png")
    sys.stderr.write(f"{_DIRECTORY / name}.png\n")


def _shoot_list_and_run(page: Any) -> None:
    page.goto("/tasks/")
    _shoot(page, "runs")
    page.goto("/tasks/?actor=fill_cache")
    page.locator("tbody tr").first.get_by_role("link").first.click()
    page.locator("#memory[data-shown]").wait_for()
    box = page.locator("#memory").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.5)
    _shoot(page, "run")


def _shoot_comparison(page: Any) -> None:
    page.goto("/actors/index_sources/")
    page.locator("input[name=a]").nth(_ROUNDS - 1).check()
    page.get_by_role("button", name="Compare B with A").click()
    page.locator("#allocations[data-shown]").wait_for()
    page.locator("#time-title").scroll_into_view_if_needed()
    _shoot(page, "compare")


def main() -> None:
    settings = demo_settings()
    with Server(settings, port=0).start() as server, sync_playwright() as playwright:
        _work(settings, server.url)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for scheme, shoot in (("light", _shoot_list_and_run), ("dark", _shoot_comparison)):
            options = {"base_url": server.url, "viewport": _SIZE, "device_scale_factor": 1.5}
            page = browser.new_page(color_scheme=scheme, **options)
            page.set_default_timeout(_PATIENCE_MS)
            shoot(page)
        browser.close()


if __name__ == "__main__":
    main()
