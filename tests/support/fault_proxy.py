"""A TCP proxy between the package and a server, which goes wrong on purpose."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

from .object_stores import free_port

Fault = Literal["refused", "silent", "slow", "500", "412", "cut request", "cut answer"]

_PIECE_BYTES = 65536
#: Bytes that are let through of what is cut, and seconds between two bytes of a slow answer.
_CUT_BYTES = 60
_SLOW_S = 0.2


class FaultProxy:
    """Passes connections on to a server, but for the time of a fault.

    Parameters:
      endpoint: The URL of the server, `http://127.0.0.1:<port>`.
    """

    def __init__(self, endpoint: str) -> None:
        self._server = ("127.0.0.1", int(endpoint.rpartition(":")[2]))
        self._port = free_port()
        self.endpoint = f"http://127.0.0.1:{self._port}"
        self.connections = 0
        "So many were made during faults."
        self._fault: Fault | None = None
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._listen()

    @contextmanager
    def fault(self, fault: Fault) -> Iterator[None]:
        """Lets all connections go wrong: those that are open now are closed."""
        self._change(fault)
        yield
        self._change(None)

    def close(self) -> None:
        self._change("refused")

    def _change(self, fault: Fault | None) -> None:
        self._fault = fault
        if fault == "refused" and self._listener is not None:
            _hang_up(self._listener)
            self._listener.close()
            self._listener = None
        for connection in [*self._open]:
            _hang_up(connection)
        if fault is None and self._listener is None:
            self._listen()

    def _listen(self) -> None:
        listener = socket.create_server(("127.0.0.1", self._port))
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), name="fault-proxy", daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):  # It was closed.
            while True:
                client, _ = listener.accept()
                self.connections += self._fault is not None
                threading.Thread(target=self._serve, args=(client, self._fault), daemon=True).start()

    def _serve(self, client: socket.socket, fault: Fault | None) -> None:
        self._open.add(client)
        with client, suppress(OSError):
            if fault in ("500", "412"):
                while client.recv(_PIECE_BYTES):
                    client.sendall(f"HTTP/1.1 {fault} Fault\r\nContent-Length: 0\r\n\r\n".encode())
            elif fault == "silent":
                while client.recv(_PIECE_BYTES):
                    pass
            else:
                self._pass_on(client, fault)
        self._open.discard(client)

    def _pass_on(self, client: socket.socket, fault: Fault | None) -> None:
        with socket.create_connection(self._server) as server:
            self._open.add(server)
            back = threading.Thread(target=self._pump, args=(server, client, fault, "answer"), daemon=True)
            back.start()
            self._pump(client, server, fault, "request")
            back.join()
            self._open.discard(server)

    def _pump(self, source: socket.socket, target: socket.socket, fault: Fault | None, way: str) -> None:
        with suppress(OSError):
            while piece := source.recv(_PIECE_BYTES):
                if fault == f"cut {way}":
                    target.sendall(piece[:_CUT_BYTES])
                    break
                if fault == "slow" and way == "answer":
                    for byte in piece:
                        target.sendall(bytes([byte]))
                        time.sleep(_SLOW_S)
                else:
                    target.sendall(piece)
        _hang_up(source)
        _hang_up(target)


def _hang_up(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
