"""The samples in the documentation: every block of code, with its page, line and language."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@dataclass(frozen=True)
class Sample:
    page: str
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def samples_of(page: Path) -> Iterator[Sample]:
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(r"^```(?P<kind>\S*)\n(?P<text>.*?)^```$", text, re.DOTALL | re.MULTILINE):
        line = text.count("\n", 0, match.start()) + 1
        yield Sample(str(page.relative_to(ROOT)), line, match["kind"], match["text"])


SAMPLES = [sample for page in PAGES for sample in samples_of(page)]


def sample_of(page: str, kind: str, begins: str = "") -> str:
    """Returns: The text of the only sample of a page that is of this kind and begins so."""
    [found] = [
        sample.text
        for sample in SAMPLES
        if (sample.page, sample.kind) == (page, kind) and sample.text.startswith(begins)
    ]
    return found
