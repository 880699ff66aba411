"""A time profile names lines, and a CPU time where it knows one."""

from __future__ import annotations

import asyncio
import io
import json
import re
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dramatiq_diag.collectors.time_profile.pruning import MAX_NODES, prune
from dramatiq_diag.reports import pyinstrument
from dramatiq_diag.reports.calltree import functions
from support import PATIENCE_S
from support.profiles import render
from support.sampling import Step, sampler_of

pytest.importorskip("pyinstrument")

KEY = "pyinstrument_profile"


def line_after(text: str) -> int:
    """The line of this file that follows the one with a text."""
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return lines.index(text) + 2


def waits() -> None:
    # The first call.
    time.sleep(0.05)
    # The second call.
    time.sleep(0.3)


# That a step has begun is noted on its line, by a call in C: no other function is seen there.


def waits_twice(first: Step, second: Step) -> None:
    # The first wait.
    first.begun.append(None) or first.lock.acquire(timeout=PATIENCE_S)  # type: ignore[func-returns-value]
    # The second wait.
    second.begun.append(None) or second.lock.acquire(timeout=PATIENCE_S)  # type: ignore[func-returns-value]


async def awaits_twice(first: Step, second: Step) -> None:
    first_end, second_end = first.future(), second.future()
    # The first await.
    await (first.begun.append(None) or first_end)  # type: ignore[func-returns-value]
    # The second await.
    await (second.begun.append(None) or second_end)  # type: ignore[func-returns-value]


def rendered(path: Path, data: bytes, renderer: Any) -> str:
    path.write_bytes(data)
    target = io.BytesIO()
    renderer(str(path), target)
    return target.getvalue().decode()


@pytest.mark.usefixtures("driven_sampler")
@pytest.mark.parametrize(
    ("task", "comment"), [(waits_twice, "    # The second wait."), (awaits_twice, "    # The second await.")]
)
def test_what_a_call_waits_for_is_named_by_its_line(bench, settings, stored, tmp_path, task, comment):
    given = settings(task_diagnostics=["pyinstrument"])
    line, name = line_after(comment), Path(__file__).name
    steps = Step(), Step()

    with bench(given) as tasks:
        work = partial(task, *steps)
        if task is awaits_twice:

            async def work() -> None:
                await awaits_twice(*steps)

        message = tasks.actor(work, actor_name="work").send()
        for step, seconds in zip(steps, (0.05, 0.3), strict=True):
            step.wait_for()
            sampler_of(tasks).take(seconds)
            step.end()
        tasks.finish()

    data = stored(given).data(message.message_id, KEY)
    text = rendered(tmp_path / "session.json", data, pyinstrument.render_text)
    assert re.search(rf"0\.300 line {line}  .*{re.escape(name)}:{line}\n", text), text
    page = rendered(tmp_path / "session.json", data, pyinstrument.render_session)
    assert f'"line {line}\\u0000' in page
    tree = json.loads(render(tmp_path / "session.json", "calltree"))
    [found] = [found for found in functions(tree["tree"]) if found["function"] == task.__name__]
    assert found["lines"][0][0] == line


def test_the_call_of_a_c_function_is_named_by_its_line(bench, settings, stored, tmp_path):
    given = settings(task_diagnostics=["pyinstrument"], pyinstrument_engine="profiler", pyinstrument_interval=0.001)
    line = line_after("    # The second call.")

    with bench(given) as tasks:
        task_id = tasks.run(waits)

    text = rendered(tmp_path / "session.json", stored(given).data(task_id, KEY), pyinstrument.render_text)
    [(at_line_s, asleep_s)] = re.findall(rf"(\d\.\d+) line {line}  .*\n.*?(\d\.\d+) sleep", text)
    assert min(float(at_line_s), float(asleep_s)) >= 0.3


def test_a_large_profile_keeps_the_lines_that_took_most():
    records = [([f"work\0jobs.py\x001\x01l{line}"], 1.0 + line) for line in range(MAX_NODES * 2)]
    heaviest = [stack for stack, _ in records[-10:]]

    pruned = prune(records)

    assert len(pruned) <= MAX_NODES
    assert sum(seconds for _, seconds in pruned) == sum(seconds for _, seconds in records)
    assert all(stack in [kept for kept, _ in pruned] for stack in heaviest)
    assert ["work\0jobs.py\x001"] in [kept for kept, _ in pruned]


def test_a_profile_of_a_run_on_its_own_thread_says_its_cpu_time(bench, settings, stored, tmp_path):
    given = settings(task_diagnostics=["pyinstrument"])

    with bench(given) as tasks:
        task_id = tasks.run(waits)

    data = stored(given).data(task_id, KEY)
    assert 0 < json.loads(data)["cpu_time"] < 0.3
    assert " CPU time: 0.0" in rendered(tmp_path / "session.json", data, pyinstrument.render_text)


def test_a_profile_of_an_async_actor_says_no_cpu_time(bench, settings, stored, tmp_path):
    """Its own thread only waits, and its event loop works for others as well."""
    given = settings(task_diagnostics=["pyinstrument"])

    with bench(given) as tasks:
        task_id = tasks.run(asyncio.sleep, 0.01, actor_name="sleep")

    data = stored(given).data(task_id, KEY)
    assert json.loads(data)["cpu_time"] is None
    assert "CPU time" not in rendered(tmp_path / "session.json", data, pyinstrument.render_text)
