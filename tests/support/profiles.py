"""Time profiles as they are stored, and whose share of them is how large."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from typing import Any

from support.store import Stored

KEY = "pyinstrument_profile"


def session_dict(reader: Stored, task_id: str) -> dict[str, Any]:
    session: dict[str, Any] = json.loads(reader.data(task_id, KEY))
    return session


def shares(reader: Stored, task_id: str) -> dict[str, float]:
    """Function -> percent of the time in it or below it."""
    spent: Counter[str] = Counter()
    records = session_dict(reader, task_id)["frame_records"]
    for stack, seconds in records:
        for function in {frame.partition("\0")[0] for frame in stack}:
            spent[function] += seconds
    whole = sum(seconds for _, seconds in records)
    return {function: 100 * seconds / whole for function, seconds in spent.items()}


def spin(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


# Async actors.


async def read_page(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def read_row(seconds: float) -> None:
    await asyncio.sleep(seconds)
