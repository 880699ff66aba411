"""Checks that the built documentation loads nothing from another host; `make docs` runs it.

`python docs/check_site.py site` prints each script, style, image or font of another host, and exits 1 if there is one.
Links that a reader may click are allowed.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

_OTHER_HOST = re.compile(r"(?:https?:)?//", re.IGNORECASE)
_STYLE_URL = re.compile(r"""(?:url\(\s*["']?|@import\s+["'])(?P<url>[^"')]+)""")
#: What a `link` does with its address, apart from naming a page that a reader may go to.
_LOADED_LINKS = {"stylesheet", "icon", "preload", "prefetch", "preconnect", "dns-prefetch", "manifest", "modulepreload"}


class _Loaded(HTMLParser):
    """Collects the URLs that a browser loads with a page."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.urls += [given[name] for name in ("src", "srcset", "poster") if name in given]
        if tag == "link" and _LOADED_LINKS & set(given.get("rel", "").split()):
            self.urls.append(given.get("href", ""))
        self.urls += _STYLE_URL.findall(given.get("style", ""))


def foreign_urls(site: Path) -> list[str]:
    """Returns: `file: URL` of everything that the pages and styles of a site load from another host."""
    found = []
    for path in sorted(site.rglob("*")):
        if path.suffix == ".html":
            parser = _Loaded()
            parser.feed(path.read_text(encoding="utf-8"))
            urls = parser.urls
        elif path.suffix == ".css":
            urls = _STYLE_URL.findall(path.read_text(encoding="utf-8"))
        else:
            continue
        found += [f"{path.relative_to(site)}: {url}" for url in urls if _OTHER_HOST.match(url)]
    return found


def main(site: Path) -> int:
    """Prints what is loaded from other hosts. Returns: The exit status."""
    if not (site / "index.html").is_file():
        sys.stderr.write(f"There is no site in {site}.\n")
        return 2
    found = foreign_urls(site)
    for line in found:
        sys.stderr.write(f"Loaded from another host: {line}\n")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
