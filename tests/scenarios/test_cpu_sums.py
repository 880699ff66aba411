"""The CPU time of all runs of a process is the CPU time of the process, but for what its own threads used."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from support import ROOT, program


def test_the_cpu_times_of_runs_add_up_to_that_of_the_process() -> None:
    with program([sys.executable, "-m", "bench.cpu", "0.25", "8"], cwd=ROOT, stdout=subprocess.PIPE) as process:
        found = json.loads(process.communicate()[0])

    assert found["runs"] == 8
    assert found["runs_s"] >= 2.0
    # What is left is Dramatiq's own work on the tasks' threads, and the hooks
    assert found["runs_s"] + found["others_s"] == pytest.approx(found["process_s"], rel=0.02), found
