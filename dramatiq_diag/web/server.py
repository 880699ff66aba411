"""The app on waitress: for the command line, the demo, and small installations."""

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

#: Requests that are worked on at a time; a long download does not count once it is being sent. At most half of them
#: wait for a rendering.
_THREADS = 2 * MAX_WAITING

#: What ends serving in good order.
_ENDING = (signal.SIGINT, signal.SIGTERM)

#: Nothing that this app answers has a body worth reading, in bytes.
_MAX_BODY_BYTES = 1 << 16


class Server:
    """One app on one port, from construction on; connections wait until it runs.

    Parameters:
      settings: The settings; those of the environment by default.
      host: The address to bind to.
      port: The port; 0 takes a free one, which `port` then names.
      insecure: Whether an address that others can reach may go without an API token.

    Raises:
      SettingsError: When others could read all without a token, or there is no such host or port.
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
        self._lock = threading.Lock()  # Guards the trigger, whose descriptor must not be written to once closed.
        self._stopping = threading.Event()
        self._waitress: Any = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where it answers, without a slash at the end."""
        return f"http://{bracketed(self.host)}:{self.port}"

    def run(self) -> None:
        """Answers until `close` is called elsewhere, or until KeyboardInterrupt or SystemExit, which pass through."""
        # It warns of requests that come before its threads have settled, and of any short queue.
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
        """Runs in a thread of its own, until `close`."""
        self._thread = threading.Thread(target=self.run, name="dramatiq_diag.web", daemon=True)
        self._thread.start()
        return self

    def interrupt(self) -> None:
        """Makes `run` return soon. For a signal handler of its thread, which could wait for its own lock for ever."""
        self._stopping.set()
        if self._waitress is not None:
            self._waitress.pull_trigger()

    def close(self) -> None:
        """Stops answering and lets go of port and database; a second time does nothing."""
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
        # An exception out of the handler could strike anywhere, and leave a connection half made.
        before = {number: signal.signal(number, lambda *_: server.interrupt()) for number in _ENDING}
        try:
            if on_ready is not None:
                on_ready(server)
            gc.collect()
            gc.freeze()  # To look through all modules again and again would hold up answers by a tenth of a second.
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
