"""Paths of source files are cut to the part that tells them apart."""

from __future__ import annotations

import pytest

from dramatiq_diag.reports.paths import shorten_paths


@pytest.mark.parametrize(
    ("path", "short"),
    [
        ("/srv/venv/lib/python3.11/site-packages/django/db/models/query.py", "django/db/models/query.py"),
        ("/usr/lib/python3/dist-packages/yaml/loader.py", "yaml/loader.py"),
        ("/usr/lib/python3.12/json/decoder.py", "json/decoder.py"),
        ("/opt/python/lib/python3.13t/json/decoder.py", "json/decoder.py"),
        ("/a/site-packages/vendor/site-packages/x.py", "x.py"),
        (r"C:\app\venv\Lib\site-packages\django\db\models\query.py", r"django\db\models\query.py"),
        ("/srv/app/jobs.py", "jobs.py"),
        ("jobs.py", "jobs.py"),
        ("<frozen importlib._bootstrap>", "<frozen importlib._bootstrap>"),
        ("", ""),
    ],
)
def test_a_path_loses_its_environment(path: str, short: str) -> None:
    assert shorten_paths([path]) == {path: short}


def test_the_files_of_an_application_lose_the_directory_that_they_share() -> None:
    short = {
        "/srv/app/shop/jobs.py": "shop/jobs.py",
        "/srv/app/shop/models/order.py": "shop/models/order.py",
        "/srv/app/manage.py": "manage.py",
        "/usr/lib/python3.12/json/decoder.py": "json/decoder.py",
    }

    assert shorten_paths(short) == short


def test_two_files_never_have_the_same_short_form() -> None:
    paths = ["/a/site-packages/x.py", "/b/site-packages/x.py", "/a/site-packages/y.py"]

    assert shorten_paths(paths) == {paths[0]: paths[0], paths[1]: paths[1], paths[2]: "y.py"}


def test_there_may_be_none() -> None:
    assert shorten_paths([]) == {}
