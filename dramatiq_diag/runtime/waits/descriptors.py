"""Tells what the descriptors of this process lead to."""

from __future__ import annotations

import os
import socket
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .kernel_files import KernelFiles
from .own_memory import Waited
from .processes import describe_process, holders_of_pipe
from .services import service_at
from .socket_calls import SocketCalls, format_address

#: The most bytes that are read of a table of the kernel, as that of TCP connections.
_MAX_BYTES = 2 * 1024 * 1024

#: The most descriptors of one epoll that are read.
_MAX_EVENTS = 64

_EPOLLIN, _EPOLLPRI = 1, 2


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a descriptor leads to."""

    kind: Literal["socket", "pipe", "file", "child", "unknown"]
    what: str
    "A noun phrase."
    peer: str | None = None
    is_connecting: bool = False
    is_listening: bool = False


class Descriptors:
    """Looks at descriptors that other threads use, without copying or opening them.

    Parameters:
      root: The directory that has `proc`.
    """

    def __init__(self, root: Path) -> None:
        self._files = KernelFiles(root, keeps_gil=True)
        self._others = KernelFiles(root, keeps_gil=False)
        self._sockets = SocketCalls()

    def endpoint(self, descriptor: int, *, is_pipe: bool | None = None) -> Endpoint:
        """Returns: What a descriptor leads to.

        Parameters:
          descriptor: The descriptor.
          is_pipe: Whether a file is a FIFO; None to ask its file system, which may take as long as the server of a
            network's file system takes.
        """
        target = self._files.link(f"proc/self/fd/{descriptor}")
        if target.startswith("socket:"):
            return self._socket(descriptor, target[len("socket:[") : -1])
        if target.startswith("pipe:"):
            others = [describe_process(child, self._others) for child in holders_of_pipe(target, self._others)]
            held = f", whose other end {' and '.join(others[:3])} may have" if others else ""
            return Endpoint("pipe", f"a pipe{held}")
        if target.startswith("anon_inode:"):
            return self._without_file(descriptor, target[len("anon_inode:") :].strip("[]"))
        if not target:
            return Endpoint("unknown", f"the descriptor {descriptor}")
        return _file(target, is_pipe=_is_pipe(descriptor) if is_pipe is None else is_pipe)

    def address(self, data: bytes) -> Endpoint:
        """Returns: The endpoint of an address that a call of `connect` got."""
        return _remote(format_address(data), is_connecting=True)

    def watched(self, descriptor: int) -> list[Waited]:
        """Returns: The descriptors that an epoll watches, each with whether it waits to write."""
        found: list[Waited] = []
        for line in self._files.text(f"proc/self/fdinfo/{descriptor}").splitlines():
            words = line.split()
            if words[:1] == ["tfd:"] and len(words) > 3:
                found.append((int(words[1]), not int(words[3], 16) & (_EPOLLIN | _EPOLLPRI)))
        return found[:_MAX_EVENTS]

    def _socket(self, descriptor: int, inode: str) -> Endpoint:
        sockets = self._sockets
        if sockets.is_listening(descriptor):
            return Endpoint("socket", sockets.own(descriptor) or "a listening socket", is_listening=True)
        if sockets.is_connecting(descriptor):
            return _remote(self._unfinished_peer(inode), is_connecting=True)
        peer = sockets.peer(descriptor)
        if peer:
            return _remote(peer)
        process_id = sockets.peer_process_id(descriptor)
        if process_id == os.getpid():
            return Endpoint("socket", "the other end of a socket pair of this process")
        own = sockets.own(descriptor)
        if process_id:
            return Endpoint("socket", f"{describe_process(process_id, self._others)} at a Unix socket", own or None)
        return Endpoint("socket", f"anybody who sends to {own}" if own else "a socket without a connection")

    def _unfinished_peer(self, inode: str) -> str:
        """Returns: The address that a TCP connection goes to, of which `getpeername` does not tell yet."""
        for name in ("tcp", "tcp6"):
            for line in self._files.text(f"proc/self/net/{name}", _MAX_BYTES).splitlines()[1:]:
                words = line.split()
                if len(words) > 9 and words[9] == inode:
                    return _kernels_address(words[2])
        return ""

    def _without_file(self, descriptor: int, name: str) -> Endpoint:
        if name != "pidfd":
            return Endpoint("unknown", f"an {name}" if name[:1] in "aeiou" else f"a {name}")
        lines = self._files.text(f"proc/self/fdinfo/{descriptor}").splitlines()
        process_id = next((int(line.split()[1]) for line in lines if line.startswith("Pid:")), 0)
        return Endpoint("child", describe_process(process_id, self._others))


def _is_pipe(descriptor: int) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    except OSError:  # It was closed meanwhile.
        return False


def _file(target: str, *, is_pipe: bool) -> Endpoint:
    if is_pipe:
        return Endpoint("pipe", f"the FIFO {target}")
    is_device = target.startswith("/dev/") and not target.startswith("/dev/shm/")  # noqa: S108 - it makes no file.
    return Endpoint("file", f"the {'device' if is_device else 'file'} {target}")


def _remote(peer: str, *, is_connecting: bool = False) -> Endpoint:
    service = service_at(peer)
    commonly = f", where {service} commonly listens" if service else ""
    return Endpoint("socket", f"{peer or 'an unknown address'}{commonly}", peer or None, is_connecting)


def _kernels_address(text: str) -> str:
    """Returns: An address of `/proc/net/tcp`: words of 32 bits in the machine's byte order, in hexadecimal."""
    host, _, port = text.partition(":")
    data = b"".join(int(host[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(host), 8))
    if len(data) == 4:
        return f"{socket.inet_ntop(socket.AF_INET, data)}:{int(port, 16)}"
    name = socket.inet_ntop(socket.AF_INET6, data)
    return f"{name[7:]}:{int(port, 16)}" if name.startswith("::ffff:") else f"[{name}]:{int(port, 16)}"
