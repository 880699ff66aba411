"""Serves the app with waitress: for the command line, the demo, and small installations."""

from __future__ import annotations

import gc
import logging
import signal
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from ..errors import DiagnosticsError, NotInstalledError, SettingsError
from ..reports.queue import MAX_WAITING
from ..settings import Settings
from . import make_app
from .http.hosts import bracketed, hosts_of_server, is_loopback

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8321

#: The requests that are handled at a time; sending a file needs no thread. At most half of them wait for a rendering.
_THREADS = 2 * MAX_WAITING

#: The signals that stop the server in good order.
_ENDING = (signal.SIGINT, signal.SIGTERM)

#: A body of so many bytes is refused by waitress itself, without a problem document; far above the limit of the app.
_MAX_BODY_BYTES = 1 << 20


class Server:
    """One app on one port. The port is bound from construction on; connections wait until `run`.

    Parameters:
      settings: The settings; those of the environment by default.
      host: The address to bind to.
      port: The port; 0 takes a free one.
      insecure: Whether an address that other machines reach may do without an API token.

    Raises:
      SettingsError: When other machines could read everything without a token, or for an unknown host or port.
      NotInstalledError: When Falcon or waitress is missing.
      DiagnosticsError: When the port is taken or forbidden.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        host: str = DEFAULT_HOST,
        port: int = DEFAULT_PORT,
        *,
        insecure: bool = False,
    ) -> None:
        settings = Settings.load(settings)
        _refuse_open_door(settings, host, insecure=insecure)
        self._create_server = _waitress_factory()
        self._app = make_app(settings, hosts_of_server(settings, host))
        self._socket = _listen(host, port)
        self.host = host
        self.port: int = self._socket.getsockname()[1]
        "The port that is bound."
        self._lock = threading.Lock()  # Guards the trigger: its descriptor must not be written to after it was closed.
        self._stopping = threading.Event()
        self._waitress: Any = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The address, without a slash at the end."""
        return f"http://{bracketed(self.host)}:{self.port}"

    def run(self) -> None:
        """Answers requests until another thread calls `close`, or until KeyboardInterrupt or SystemExit."""
        # It warns of every short queue, and of requests before its threads have started.
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        waitress = self._create_server(
            self._app,
            sockets=[self._socket],
            threads=_THREADS,
            ident=None,
            asyncore_use_poll=True,
            max_request_body_size=_MAX_BODY_BYTES,
            clear_untrusted_proxy_headers=True,
        )
        with self._lock:
            self._waitress = waitress
        try:
            while not self._stopping.is_set():
                waitress.asyncore.loop(timeout=1, use_poll=True, map=waitress._map, count=1)
        finally:
            with self._lock:
                self._waitress = None
            waitress.task_dispatcher.shutdown()
            waitress.asyncore.close_all(waitress._map, ignore_all=True)

    def start(self) -> Self:
        """Runs in a new thread, until `close`."""
        self._thread = threading.Thread(target=self.run, name="dramatiq_diag.web", daemon=True)
        self._thread.start()
        return self

    def interrupt(self) -> None:
        """Makes `run` return soon. For signal handlers: it takes no lock, which their own thread could hold."""
        self._stopping.set()
        if self._waitress is not None:
            self._waitress.pull_trigger()

    def close(self) -> None:
        """Stops answering, and releases the port and the database. A second call does nothing."""
        self._stopping.set()
        with self._lock:
            if self._waitress is not None:
                self._waitress.pull_trigger()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._socket.close()
        self._app.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def serve(
    settings: Settings | None = None,
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    *,
    insecure: bool = False,
    on_ready: Callable[[Server], None] | None = None,
) -> None:
    """Serves from the main thread until Ctrl+C or SIGTERM; parameters and errors are those of `Server`.

    Parameters:
      on_ready: Called once the port is bound.
    """
    with Server(settings, host, port, insecure=insecure) as server:
        # An exception in the handler could interrupt any code, and leave a connection half open.
        before = {number: signal.signal(number, lambda *_: server.interrupt()) for number in _ENDING}
        try:
            if on_ready is not None:
                on_ready(server)
            gc.collect()
            gc.freeze()  # Collections that walk through all modules would delay answers by a tenth of a second.
            server.run()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _refuse_open_door(settings: Settings, host: str, *, insecure: bool) -> None:
    if is_loopback(host) or settings.api_token is not None or insecure:
        return
    raise SettingsError(
        f"{Settings.variable('api_token')}: it is not set, and everybody who reaches {host or 'all addresses'!r} could "
        f"read all diagnostics; set it, serve on {DEFAULT_HOST}, or allow it with --insecure."
    )


def _waitress_factory() -> Callable[..., Any]:
    try:
        import waitress  # type: ignore[import-untyped]
    except ImportError as error:
        raise NotInstalledError(
            f"Serving needs waitress, which is not installed ({error}): pip install 'dramatiq_diag[web]'"
        ) from error
    factory: Callable[..., Any] = waitress.create_server
    return factory


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise SettingsError(f"The port {port} is not allowed; allowed: 0 to 65535.")
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    except (socket.gaierror, UnicodeError) as error:
        raise SettingsError(f"The host {host!r} is not an address of this machine: {error}.") from error
    try:
        return socket.create_server(address[:2], family=family, backlog=128)
    except OSError as error:
        raise DiagnosticsError(
            f"Port {port} of {host!r} cannot be served on: {error.strerror or error}; choose another with --port."
        ) from error
