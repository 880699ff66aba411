"""What the sampler makes is a session to every pyinstrument that this package allows."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support import missing

#: The first ones of each line, and the newest.
VERSIONS = ("==5.0.0", "==5.1.0", ">=5")

SCRIPT = """
import json, sys
import pyinstrument
from pyinstrument.renderers import ConsoleRenderer, HTMLRenderer, SpeedscopeRenderer
from pyinstrument.session import Session

assert pyinstrument.__file__.startswith(sys.argv[1]), pyinstrument.__file__
stored = json.loads(sys.stdin.read())
page = HTMLRenderer().render(Session.from_json(stored))
text = ConsoleRenderer(unicode=True, color=False).render(Session.from_json(stored))
speedscope = json.loads(SpeedscopeRenderer(show_all=True).render(Session.from_json(stored)))
assert "</html>" in page
print(json.dumps({
    "html": "count_words" in page,
    "text": "count_words" in text and "Parser.feed" in text,
    "speedscope": sorted(frame["name"] for frame in speedscope["shared"]["frames"]),
    "unit": speedscope["profiles"][0]["unit"],
    "end": speedscope["profiles"][0]["endValue"],
}))
"""


class Parser:
    def feed(self, seconds: float) -> None:
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            pass


def count_words() -> None:
    Parser().feed(0.2)


@pytest.fixture(scope="module", params=VERSIONS)
def packages(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one version of pyinstrument."""
    directory = tmp_path_factory.mktemp("pyinstrument")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--only-binary",
        ":all:",
    ]
    done = subprocess.run(
        [*command, "--no-deps", "--target", str(directory), f"pyinstrument{request.param}"],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        missing(f"pyinstrument{request.param} could not be fetched: {done.stderr}", "It needs pip and a package index.")
    return directory


def test_every_renderer_takes_our_sessions(packages: Path, bench, settings, stored) -> None:
    given = settings(task_diagnostics=["pyinstrument"], pyinstrument_interval=0.001)
    with bench(given) as tasks:
        task_id = tasks.run(count_words)
    data = stored(given).data(task_id, "pyinstrument_profile")

    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(packages)!r})\n{SCRIPT}", str(packages)],
        input=data,
        capture_output=True,
    )

    assert done.returncode == 0, done.stderr.decode()
    seen = json.loads(done.stdout)
    assert (seen["html"], seen["text"], seen["unit"]) == (True, True, "seconds")
    assert {"count_words", "feed"} <= {name.rpartition(".")[2] for name in seen["speedscope"]}
    session = json.loads(data)
    spent_s = sum(seconds for _, seconds in session["frame_records"])
    assert spent_s * 0.999 <= seen["end"] <= session["duration"] * 1.001  # The first versions end it with the run.
