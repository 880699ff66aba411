"""One simulated host: executes tasks with a data directory and a clock of its own."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from random import Random

import dramatiq
from dramatiq.brokers.stub import StubBroker

from dramatiq_diag import Diagnostics, Settings
from dramatiq_diag.errors import StoreUnavailableError
from dramatiq_diag.maintenance.cleanup import Cleanup
from dramatiq_diag.store.store import Store

#: Tasks that wait in the broker of the host: more would only be lost with it.
_WAITING = 20

#: Runs that wait to be published: without a bound all tasks and kills would be over before the most are published.
_UNPUBLISHED = 100

#: Seconds that a host has at most for what it has not published when its tasks are done.
_TIMEOUT_S = 600.0

#: A cleanup is followed by a pause of so many times its duration: each lists the whole bucket, and the server of the
#: tests has one core for all.
_PAUSE = 4


def main(directory: str, count: str, seed: str) -> None:
    """Executes tasks until *count* were begun here, also by the processes before. Runs in a process of its own.

    The file `begun` has the id of each task before it is sent, `ended` after it was executed. Both survive the process.
    """
    place = Path(directory)
    begun, ended = (open(place / name, "a", buffering=1) for name in ("begun", "ended"))  # noqa: SIM115
    left = int(count) - sum(1 for _ in open(place / "begun"))  # noqa: SIM115
    chance = Random(f"{seed} {directory} {left}")
    settings = Settings(data_dir=place / "data", task_diagnostics=["memory"], cleanup_interval=0)
    broker = StubBroker(middleware=[])
    diagnostics = Diagnostics(settings)
    broker.add_middleware(diagnostics)

    def work(task_id: str, duration_s: float) -> None:
        time.sleep(duration_s)

    actor = dramatiq.actor(work, actor_name=f"work-{chance.randrange(5)}", broker=broker)

    class Ledger(dramatiq.Middleware):
        """Writes down each task that was executed and whose diagnostics were handed over."""

        def after_process_message(
            self,
            broker: dramatiq.Broker,
            message: dramatiq.MessageProxy,
            *,
            result: object = None,
            exception: BaseException | None = None,
        ) -> None:
            ended.write(f"{message.message_id}\n")

    broker.add_middleware(Ledger(), before=Diagnostics)
    worker = dramatiq.Worker(broker, worker_threads=4, worker_timeout=100)
    worker.start()
    assert diagnostics.process is not None
    backlog = diagnostics.process.publisher.backlog
    for _ in range(left):
        while broker.queues[actor.queue_name].qsize() > _WAITING or len(backlog) > _UNPUBLISHED:
            time.sleep(0.005)
        message = actor.message("", chance.expovariate(1000))
        begun.write(f"{message.message_id}\n")
        broker.enqueue(message)
    broker.join(actor.queue_name)
    diagnostics.flush(_TIMEOUT_S)
    give_up_at = time.monotonic() + _TIMEOUT_S
    while len(list(settings.spool.iterdir())) > 1 and time.monotonic() < give_up_at:
        time.sleep(0.2)  # What the killed processes left is being salvaged.
    worker.stop()


def clean(directory: str) -> None:
    """Cleans up from a host of its own, over and over, until it is killed."""
    store = Store(Settings(data_dir=Path(directory) / "data"))
    while True:
        started = time.monotonic()
        try:
            Cleanup(store).run()
        except StoreUnavailableError as error:  # A server that all hosts use at once may be slow; the next one goes on.
            sys.stderr.write(f"{error}\n")
        time.sleep(0.5 + _PAUSE * (time.monotonic() - started))


if __name__ == "__main__":
    os.umask(0o077)
    {"work": main, "clean": clean}[sys.argv[1]](*sys.argv[2:])
