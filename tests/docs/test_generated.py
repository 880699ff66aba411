"""The generated pages are those of the code, the module map is the tree, and the site needs no other host."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from support import ROOT

PACKAGE = ROOT / "dramatiq_diag"


def script(name: str) -> ModuleType:
    """Returns: A script of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_pages_are_up_to_date() -> None:
    # In a process of its own: click keeps the help option of the first context in which a test has invoked a command.
    command = [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True)

    assert done.returncode == 0, f"{done.stderr}Write them anew: make docs"


def test_a_page_that_was_changed_by_hand_is_stale(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    generate = script("generate")
    pages = generate.generated_pages()
    page = tmp_path / "settings.md"
    page.write_text(next(iter(pages.values())) + "More.\n", encoding="utf-8")
    monkeypatch.setattr(generate, "generated_pages", lambda: {page: next(iter(pages.values()))})

    assert generate.stale_pages() == [page]


def test_the_module_map_of_the_architecture_is_the_tree() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named, folder = set(), ""
    for line in text.splitlines():
        if heading := re.match(r"### `(dramatiq_diag/.*)`$", line):
            folder = heading[1]
        elif folder and (row := re.match(r"\| `(\w+\.py)` \| (.*) \|$", line)):
            assert row[2], f"{folder}{row[1]} has no docstring"
            named.add(folder + row[1])

    modules = {path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.py")}
    inits = {module for module in modules if module.count("/") > 1 and module.endswith("/__init__.py")}
    assert named == modules - inits


def test_the_first_page_lists_all_others() -> None:
    listed = set(re.findall(r"^\| \[[^]]+\]\(([a-z-]+\.md)\)", (ROOT / "docs" / "index.md").read_text(), re.MULTILINE))

    assert listed == {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation, built as `make docs` builds it."""
    pytest.importorskip("mkdocs")
    directory = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(directory)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return directory


def test_the_site_has_every_page_and_loads_nothing_from_another_host(site: Path) -> None:
    pages = {path.with_suffix(".html").name for path in (ROOT / "docs").glob("*.md")}

    assert pages <= {path.name for path in site.glob("*.html")}
    assert script("check_site").foreign_urls(site) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.html", '<script src="https://cdn.example/a.js"></script>'),
        ("a.html", '<link rel="stylesheet" href="//fonts.example/a.css">'),
        ("a.html", '<p style="background: url(https://example.com/a.png)">'),
        ("a.css", "@import 'https://fonts.example/a.css';"),
        ("a.css", 'a { src: url("https://fonts.example/a.woff2") }'),
    ],
)
def test_what_a_page_loads_from_another_host_is_found(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)

    assert len(script("check_site").foreign_urls(tmp_path)) == 1


def test_a_link_to_another_host_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<a href="https://example.com">there</a><link rel="canonical" href="https://x.y">')

    assert script("check_site").foreign_urls(tmp_path) == []


@pytest.mark.parametrize(("page", "at_least"), [("CONTRIBUTING.md", 10), ("docs/architecture.md", 25)])
def test_the_files_that_a_change_touches_exist(page: str, at_least: int) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w./]+/(?:[\w.]+\.(?:py|html))?)`(?! \(new\))", text)) - {"site/"}

    assert len(named) > at_least
    missing = [path for path in sorted(named) if not any((root / path).exists() for root in (ROOT, PACKAGE))]
    assert missing == []
    added = re.findall(r"`([\w./]+\.py)` \(new\)", text)
    assert [path for path in added if (PACKAGE / path).exists()] == []


def test_the_names_that_a_change_touches_are_in_these_files() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    steps = re.findall(r"^\d+\. (.*?)(?=^\d+\. |^$)", text, re.MULTILINE | re.DOTALL)

    checked = 0
    for step in steps:
        files = [PACKAGE / path for path in re.findall(r"`([\w./]+\.py)`", step)]
        code = "\n".join(path.read_text(encoding="utf-8") for path in files if path.exists())
        if code and "(new)" not in step:
            for name in re.findall(r"`(?:[A-Z]\w+\.)?(\w+)`", step):
                if name not in ("running", "release", "sample_interval", "all"):
                    assert re.search(rf"\b{name}\b", code), (name, step)
                    checked += 1
    assert checked > 8
