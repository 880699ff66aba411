"""The control group that limits the CPU time of a process, and for how long it was throttled."""

from __future__ import annotations

from pathlib import Path

import pytest

from dramatiq_diag.runtime.cpu_limit import find_cpu_stat, throttled_s

V2 = "sys/fs/cgroup"
V1 = "sys/fs/cgroup/cpu"


def machine(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    """Writes the files of a machine. Returns: Its root."""
    for name, text in {"proc/self/cgroup": cgroup, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("cgroup", "files", "group"),
    [
        ("0::/\n", {f"{V2}/cpu.max": "50000 100000\n"}, V2),
        ("0::/a/b\n", {f"{V2}/a/b/cpu.max": "50000 100000\n", f"{V2}/a/cpu.max": "9 10\n"}, f"{V2}/a/b"),
        ("0::/a/b\n", {f"{V2}/a/b/cpu.max": "max 100000\n", f"{V2}/a/cpu.max": "9 10\n"}, f"{V2}/a"),
        # The path of the host, seen from a container
        ("0::/docker/4711\n", {f"{V2}/cpu.max": "50000 100000\n"}, V2),
        ("7:cpu,cpuacct:/a\n", {f"{V1}/a/cpu.cfs_quota_us": "50000\n"}, f"{V1}/a"),
        ("7:cpu,cpuacct:/a/b\n", {f"{V1}/a/b/cpu.cfs_quota_us": "-1\n", f"{V1}/cpu.cfs_quota_us": "9\n"}, V1),
        # Both versions at once
        ("9:pids:/a\n7:cpu:/a\n0::/\n", {f"{V1}/a/cpu.cfs_quota_us": "50000\n", f"{V2}/cpu.max": "max 9\n"}, f"{V1}/a"),
        ("0::/a:b\n", {f"{V2}/a:b/cpu.max": "50000 100000\n"}, f"{V2}/a:b"),
    ],
)
def test_the_innermost_group_with_a_limit_is_found(tmp_path, cgroup, files, group):
    found = find_cpu_stat(machine(tmp_path, cgroup, files))

    assert found == tmp_path / group / "cpu.stat"


@pytest.mark.parametrize(
    ("cgroup", "files"),
    [
        ("0::/a\n", {f"{V2}/a/cpu.max": "max 100000\n", f"{V2}/cpu.max": "max 100000\n"}),
        ("0::/a\n", {}),
        ("0::/a\n", {f"{V2}/a/cpu.max": ""}),
        ("7:cpu:/a\n", {f"{V1}/a/cpu.cfs_quota_us": "-1\n"}),
        ("8:cpuset:/a\n", {f"{V1}/a/cpu.cfs_quota_us": "50000\n"}),
        ("something else\n:\n\n", {}),
        ("", {}),
    ],
)
def test_there_may_be_none(tmp_path, cgroup, files):
    assert find_cpu_stat(machine(tmp_path, cgroup, files)) is None


def test_there_may_be_no_such_files(tmp_path):
    assert find_cpu_stat(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("usage_usec 9\nnr_throttled 2\nthrottled_usec 1500000\n", 1.5),
        ("nr_periods 3\nthrottled_time 2500000000\n", 2.5),
        ("usage_usec 9\n", None),
        ("usage_usec 9\nthrottled_usec", None),
        ("throttled_usec much\n", None),
        ("\ufffd\x00", None),
        ("throttled_usec " + "9" * 1000, None),
        ("", None),
    ],
)
def test_for_how_long_it_was_throttled(text, seconds):
    assert throttled_s(text) == (None if seconds is None else pytest.approx(seconds))
