"""Holds the parts of a worker process that its collectors and runs share."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..runtime.coroutines import CoroutineTracker
from ..runtime.counters import CounterReader
from ..runtime.profile_hook import ProfileHook
from ..runtime.rss import RssReader
from ..runtime.switch_interval import SwitchInterval
from ..runtime.ticker import Ticker

if TYPE_CHECKING:
    from dramatiq import Message


#: When a message was taken up: in seconds since the epoch, and by `Services.clock`, as the first clock may be set anew.
Since = tuple[float, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class Services:
    """The parts that the collectors, runs and threads of one process share; made after the fork."""

    warn_once: Callable[..., None]
    "Logs a warning with an error's traceback, repetitions at debug level; for any thread. See `TaskLog.warn_once`."
    clock: Callable[[], float] = time.perf_counter
    "The clock of the times of runs, in seconds; it never goes back."
    ticker: Ticker
    "Calls functions at intervals, on a thread of its own."
    rss: RssReader = field(default_factory=RssReader)
    profile_hook: ProfileHook = field(default_factory=ProfileHook)
    switch_interval: SwitchInterval = field(default_factory=SwitchInterval)
    coroutines: CoroutineTracker = field(default_factory=CoroutineTracker)
    counters: CounterReader = field(default_factory=CounterReader)
    messages: dict[int, tuple[Message[Any], Since]] = field(default_factory=dict)
    "Thread id -> the message that is processed on it, diagnosed or not, and since when."
    hostname: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    worker_id: uuid.UUID = field(default_factory=uuid.uuid4)
    "Names this process in the store."
    release: str | None = None
    "The release of the application; None where it is not known."
