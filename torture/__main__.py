"""Tortures workers: `python -m torture [--minutes N] [--seed N] [--only NAME]`.

Four set-ups at once: Redis and RabbitMQ, each with SQLite and PostgreSQL, all with all diagnostics on. Processes are
killed, databases crash or are locked, and blob directories come and go, in an order that the seed decides. At the end
every task that was ever started must have its runs, every run its artifacts, and every artifact that was seen as stored
its file. Prints the counts of each set-up; exits 1 if one is not clean, and keeps its files then.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path
from random import Random

from dramatiq import Message

from dramatiq_diag import Settings

from .account import Account, Auditor, Notes, recover, settle
from .faults import Blobs, Faults, Postgres, Sqlite
from .servers import PostgresServer, make_broker, rabbitmq_queue, redis_server
from .workers import Workers

NAMES = ("redis-sqlite", "redis-postgresql", "rabbitmq-sqlite", "rabbitmq-postgresql")

_TASKS_PER_SECOND = 4.0
_ACTORS = ("parse", "parse", "hold", "fetch", "fail", "overrun", "linger", "linger")

#: Seconds in which the first worker has to start, and at least one more task to be done once nothing befalls them.
_DRAIN_S = 300.0


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m torture", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10, help="how long (10)")
    parser.add_argument("--seed", type=int, default=1, help="decides what happens when (1)")
    parser.add_argument("--only", choices=NAMES, action="append", help="one set-up; may be given again")
    arguments = parser.parse_args()
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    names = arguments.only or NAMES
    directory = Path(tempfile.mkdtemp(prefix="dramatiq_diag_torture_"))
    progress = Progress(arguments.minutes * 60)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: progress.end())
    clean = True
    with ThreadPoolExecutor(len(names)) as pool:
        running = {pool.submit(torture, name, directory / name, arguments.seed, progress): name for name in names}
        for done in as_completed(running):
            try:
                account = done.result()
            except Exception as error:  # noqa: BLE001 - it is told, and the others go on.
                traceback.print_exception(error)
                account = Account(name=running[done], wrong=[f"the torture itself failed: {error!r}"])
            say(str(account))
            clean = clean and not account.wrong
    if not clean:
        sys.exit(f"Not clean; everything is in {directory}.")
    shutil.rmtree(directory)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class Progress:
    """A line a minute."""

    def __init__(self, seconds: float) -> None:
        self.started = time.monotonic()
        self.ends = self.started + seconds
        self._lock = threading.Lock()
        self._said = 0

    def end(self) -> None:
        """Ends the torture now; the accounts are still settled."""
        self.ends = 0.0

    def tell(self, text: str) -> None:
        """Says how far one set-up is, at most once a minute over all."""
        minute = int((time.monotonic() - self.started) / 60)
        with self._lock:
            if minute > self._said:
                self._said = minute
                say(f"{minute} min: {text}")


def torture(name: str, directory: Path, seed: int, progress: Progress) -> Account:
    """Tortures one set-up. Returns: Its account."""
    broker_kind, _, database_kind = name.partition("-")
    chance = Random(f"{seed} {name}")
    queue_name = f"torture_{name.replace('-', '_')}_{time.time_ns():x}"
    directory.mkdir()
    account = Account(name=name)
    with ExitStack() as stack:
        servers = redis_server() if broker_kind == "redis" else rabbitmq_queue(queue_name)
        broker_url = stack.enter_context(servers)
        database_url = ""
        if database_kind == "postgresql":
            server = PostgresServer(directory / "postgresql")
            stack.callback(server.close)
            database_url = server.url
        environment = {
            "TASK_DIAGNOSTICS": "memory,pyinstrument,memray",
            "DRAMATIQ_DIAG_DATA_DIR": str(directory / "data"),
            "DRAMATIQ_DIAG_DATABASE_URL": database_url,
            "DRAMATIQ_DIAG_CLEANUP_INTERVAL": "30",
            "DRAMATIQ_DIAG_CLEANUP_QUEUE": queue_name,
            "TORTURE_BROKER": broker_url,
            "TORTURE_QUEUE": queue_name,
            "TORTURE_NOTES": str(directory / "notes"),
        }
        settings = Settings(data_dir=directory / "data", database_url=database_url or None)
        notes = Notes(directory / "notes")
        workers = Workers(environment, directory / "log", ["--use-spawn"] if broker_kind == "rabbitmq" else [])
        stack.callback(workers.kill)
        workers.start()
        wait_for(settings.blob_dir / ".store-id")

        blobs = Blobs(settings.blob_dir)
        database = (
            Postgres(server).database_crash
            if database_url
            else Sqlite(settings.data_dir / "diagnostics.db").database_locked
        )
        faults = [
            Faults(
                [workers.kill_one, workers.kill_one, workers.kill_all, workers.restart],
                (5, 20),
                Random(chance.random()),
            ),
            Faults([database, blobs.blobs_away, blobs.blobs_unmounted], (2, 15), Random(chance.random())),
        ]
        auditor = Auditor(settings)
        auditor.start()
        for each in faults:
            each.start()
        sent = send(broker_url, queue_name, chance, name, progress)
        for each in faults:
            each.stop()
            account.faults |= each.counts
        drain(account, notes, sent)
        workers.stop(_DRAIN_S)
        auditor.stop()
        account.sent, account.boots = len(sent), workers.starts
        account.recovered, wrong = recover(settings, environment)
        account.wrong += wrong
        settle(account, settings, notes, auditor.seen)
    return account


def wait_for(path: Path) -> None:
    """Waits until the first worker has made the store. Raises: TimeoutError."""
    give_up_at = time.monotonic() + _DRAIN_S
    while not path.exists():
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"{path} was never made")
        time.sleep(0.1)


def send(broker_url: str, queue_name: str, chance: Random, name: str, progress: Progress) -> list[str]:
    """Sends tasks until the end. Returns: Their ids."""
    broker = make_broker(broker_url, queue_name)
    broker.declare_queue(queue_name)
    sent = []
    while time.monotonic() < progress.ends:
        message = Message(
            queue_name=queue_name, actor_name=chance.choice(_ACTORS), args=(len(sent),), kwargs={}, options={}
        )
        sent.append(broker.enqueue(message).message_id)
        progress.tell(f"{name} has {len(sent)} tasks")
        time.sleep(chance.expovariate(_TASKS_PER_SECOND))
    broker.close()
    return sent


def drain(account: Account, notes: Notes, sent: list[str]) -> None:
    """Waits until each task's function has ended once, for as long as they go on."""
    fewest, give_up_at = len(sent) + 1, 0.0
    while missing := set(sent) - set(notes.count("ended")):
        if len(missing) < fewest:
            fewest, give_up_at = len(missing), time.monotonic() + _DRAIN_S
        if time.monotonic() > give_up_at:
            account.wrong.append(f"{len(missing)} tasks were never done, {min(missing)} among them")
            return
        time.sleep(1)


main()
