"""A worker process whose time a test makes pass: days of a run in seconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dramatiq
from dramatiq.broker import MessageProxy
from dramatiq.brokers.stub import StubBroker

from dramatiq_diag import Settings
from dramatiq_diag.runtime.ticker import Ticker
from dramatiq_diag.statuses import RunStatus
from dramatiq_diag.worker.actors import HostedActors
from dramatiq_diag.worker.process import WorkerProcess
from dramatiq_diag.worker.run import Run
from dramatiq_diag.worker.tuning import TUNING, Tuning
from support import PATIENCE_S
from support.clocks import Clock


class DrivenTicker(Ticker):
    """A ticker without a thread: the test calls what is due."""

    def start(self) -> None: ...


class Simulation:
    """The diagnostics of a process, by the clock and the ticker of a test; runs begin and end on the test's thread."""

    def __init__(self, settings: Settings, tuning: Tuning) -> None:
        self.clock = Clock()
        self.ticker = DrivenTicker(self.clock)
        self.process = WorkerProcess(settings, HostedActors(), clock=self.clock, ticker=self.ticker, tuning=tuning)
        self.broker = StubBroker(middleware=[])

    def actor(self, name: str = "work") -> dramatiq.Actor[Any, Any]:
        return dramatiq.actor(lambda: None, actor_name=name, broker=self.broker)

    def begin(self, actor: dramatiq.Actor[Any, Any]) -> Run:
        """Does what happens before the function of an actor is called."""
        run = self.process.begin(self.broker, MessageProxy(actor.message()))
        assert run is not None
        for enter in run.start():
            enter()
        return run

    def end(self, run: Run, status: RunStatus = RunStatus.SUCCEEDED) -> None:
        """Does what happens after it."""
        run.stop(status)
        self.process.saver.submit(run)
        del self.process.runs[next(thread for thread, found in self.process.runs.items() if found is run)]

    def pass_time(self, seconds: float, step_s: float = 0.05) -> None:
        """Lets so many seconds pass, and calls what is due at the end of each step."""
        for _ in range(round(seconds / step_s)):
            self.clock.now_s += step_s
            while self.ticker.turn():
                pass

    def flush(self) -> None:
        assert self.process.flush(PATIENCE_S)


@contextmanager
def simulated(settings: Settings, tuning: Tuning = TUNING) -> Iterator[Simulation]:
    simulation = Simulation(settings, tuning)
    simulation.process.start()
    try:
        yield simulation
    finally:
        simulation.process.stop(PATIENCE_S)
        simulation.broker.close()
