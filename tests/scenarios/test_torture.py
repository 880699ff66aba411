"""The torture, for a few seconds: that it comes to its account, and the account is clean."""

from __future__ import annotations

import subprocess
import sys

from support import ROOT


def test_a_short_torture_ends_clean(redis_url):
    command = [sys.executable, "-m", "torture", "--minutes", "0.2", "--only", "redis-sqlite"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "redis-sqlite: clean" in done.stdout
