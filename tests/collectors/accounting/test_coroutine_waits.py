"""What a look at a coroutine tells while its event loop executes nothing."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import closing

import pytest

from dramatiq_diag.collectors.accounting.coroutine_waits import CoroutineLook, LoopLook


@pytest.mark.parametrize(("is_awake", "part"), [(True, "loop_wait"), (False, "awaiting")])
def test_a_loop_that_waits_for_a_processor_keeps_a_coroutine_waiting(is_awake, part):
    """It has left its selector then, though its stack still says that it selects."""

    async def sleep() -> None:
        await asyncio.sleep(0.001)

    with closing(asyncio.new_event_loop()) as loop:
        coroutine = sleep()
        task = loop.create_task(coroutine)
        loop.run_until_complete(asyncio.sleep(0))
        time.sleep(0.01)  # The sleep is over, and the loop has not come to it.
        loop_look = LoopLook(threading.get_ident(), is_awake=is_awake)
        look = CoroutineLook(coroutine, loop_look)
        loop_look.take()
        look.read()
        name = look.name()
        loop.run_until_complete(task)

    assert name.where[0] == part
