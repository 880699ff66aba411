"""The control group that limits the CPU time of a process, and for how long it was throttled."""

from __future__ import annotations

from pathlib import Path

import pytest

from dramatiq_diag.runtime.cpu_limit import CpuLimit, find_cpu_limit

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
    found = find_cpu_limit(machine(tmp_path, cgroup, files))

    assert found is not None
    assert found.stat == tmp_path / group / "cpu.stat"


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
    assert find_cpu_limit(machine(tmp_path, cgroup, files)) is None


def test_there_may_be_no_such_files(tmp_path):
    assert find_cpu_limit(tmp_path) is None


@pytest.mark.parametrize(
    ("limit", "text", "seconds"),
    [
        (CpuLimit(Path(), b"throttled_usec", 1e-6), b"usage_usec 9\nnr_throttled 2\nthrottled_usec 1500000\n", 1.5),
        (CpuLimit(Path(), b"throttled_time", 1e-9), b"nr_periods 3\nthrottled_time 2500000000\n", 2.5),
        (CpuLimit(Path(), b"throttled_usec", 1e-6), b"usage_usec 9\n", None),
        (CpuLimit(Path(), b"throttled_usec", 1e-6), b"usage_usec 9\nthrottled_usec", None),
        (CpuLimit(Path(), b"throttled_usec", 1e-6), b"throttled_usec much\n", None),
        (CpuLimit(Path(), b"throttled_usec", 1e-6), b"\xff\x00", None),
        (CpuLimit(Path(), b"throttled_usec", 1e-6), b"", None),
    ],
)
def test_for_how_long_it_was_throttled(limit, text, seconds):
    assert limit.throttled_s(text) == (None if seconds is None else pytest.approx(seconds))
