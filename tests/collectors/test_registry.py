"""Collectors whose packages are not installed, or break."""

from __future__ import annotations

import sys

import pytest

from dramatiq_diag.collectors.names import all_names, installed
from dramatiq_diag.collectors.registry import load
from dramatiq_diag.statuses import ArtifactStatus
from support.collectors import CONTRACT, spin


@pytest.mark.parametrize("package", ["memray", "pyinstrument"])
def test_a_missing_package_gives_unavailable_and_the_remedy(bench, settings, stored, monkeypatch, package):
    given = settings(task_diagnostics=["memory", package])
    calls: list[int] = []

    # Given a package that cannot be imported
    monkeypatch.setitem(sys.modules, package, None)

    # When a task runs
    with bench(given) as tasks:
        task_id = tasks.run(lambda: calls.append(1), actor_name="counted")

    # Then it is unharmed, and its artifact names the command that mends it
    monkeypatch.undo()
    artifacts = stored(given).artifacts(task_id)
    missing = artifacts[CONTRACT[package][0]]
    assert calls == [1]
    assert missing.status == ArtifactStatus.UNAVAILABLE
    assert f"pip install 'dramatiq_diag[{package}]'" in missing.reason
    assert (missing.filename, missing.media_type) == CONTRACT[package][1:3]
    assert artifacts["memory_profile"].status == ArtifactStatus.STORED


@pytest.mark.parametrize("package", ["memray", "pyinstrument"])
def test_all_means_all_that_are_installed(bench, settings, stored, monkeypatch, package):
    given = settings(task_diagnostics="all")
    monkeypatch.setitem(sys.modules, package, None)

    with bench(given) as tasks:
        task_id = tasks.run(spin, 0)

    monkeypatch.undo()
    assert set(stored(given).artifacts(task_id)) == {CONTRACT[name][0] for name in all_names() if name != package}
    assert not installed("memray") or installed("pyinstrument")


def test_a_package_that_breaks_at_import_is_unavailable(settings, monkeypatch, tmp_path):
    (tmp_path / "memray.py").write_text("raise OSError('libunwind.so.8: cannot open shared object file')")
    monkeypatch.delitem(sys.modules, "memray", raising=False)
    monkeypatch.syspath_prepend(tmp_path)

    collectors = load(["memray", "memory"], settings())

    assert list(collectors) == ["memray", "memory"]
    assert "libunwind" in collectors["memray"].reason  # type: ignore[attr-defined]
