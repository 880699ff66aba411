"""Holds the parts of a worker process that its collectors and runs share."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from ..runtime.coroutines import CoroutineTracker
from ..runtime.profile_hook import ProfileHook
from ..runtime.rss import RssReader
from ..runtime.switch_interval import SwitchInterval
from ..runtime.task_log import TaskLog
from ..runtime.ticker import Ticker


@dataclass(frozen=True, kw_only=True, eq=False)
class Services:
    """The parts that the collectors, runs and threads of one process share; made after the fork."""

    log: TaskLog
    clock: Callable[[], float] = time.perf_counter
    "The clock of the times of runs, in seconds; it never goes back."
    ticker: Ticker
    "Calls functions at intervals, on a thread of its own."
    rss: RssReader = field(default_factory=RssReader)
    profile_hook: ProfileHook = field(default_factory=ProfileHook)
    switch_interval: SwitchInterval = field(default_factory=SwitchInterval)
    coroutines: CoroutineTracker = field(default_factory=CoroutineTracker)
    hostname: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)

    def warn_once(self, key: Hashable, error: BaseException, text: str, *values: Any) -> None:
        """Logs a warning with the error's traceback the first time, later at debug level. Any thread may call it."""
        self.log.warn_once(key, error, text, *values)
