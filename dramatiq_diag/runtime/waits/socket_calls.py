"""Asks the kernel about sockets of this process by their descriptors alone, without a copy of a descriptor."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import sys

#: `struct sockaddr_storage` has 128 bytes.
_ADDRESS_BYTES = 128

#: States of a TCP connection; see `tcp_states.h`.
_SYN_SENT, _LISTEN = 2, 10


class SocketCalls:
    """`getpeername`, `getsockname` and `getsockopt` for a descriptor that other threads use.

    Note:
      Python's socket objects are avoided: to make one of a descriptor sets it to non-blocking where the application has
      a default timeout, and closing a copy of a descriptor drops the locks that `fcntl` set if it was reused meanwhile.
    """

    def __init__(self) -> None:
        self._libc = ctypes.PyDLL(None, use_errno=True) if sys.platform == "linux" else None

    def peer(self, descriptor: int) -> str:
        """Returns: The address of the other end, as `host:port` or a path; empty if there is none."""
        return self._address("getpeername", descriptor)

    def own(self, descriptor: int) -> str:
        """Returns: The address of this end, as `host:port` or a path; empty if there is none."""
        return self._address("getsockname", descriptor)

    def is_listening(self, descriptor: int) -> bool:
        return self._number(descriptor, socket.SO_ACCEPTCONN) == 1

    def is_connecting(self, descriptor: int) -> bool:
        """Returns: Whether a TCP connection has been asked for, and not been made yet."""
        data = self._option(descriptor, socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        return self.type(descriptor) == socket.SOCK_STREAM and data[:1] == bytes([_SYN_SENT])

    def type(self, descriptor: int) -> int:
        """Returns: `SOCK_STREAM` and so on; -1 for what is no socket."""
        return self._number(descriptor, socket.SO_TYPE)

    def peer_process_id(self, descriptor: int) -> int:
        """Returns: The process at the other end of a Unix socket; 0 if it is not known."""
        data = self._option(descriptor, socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return max(struct.unpack("=i", data[:4])[0], 0) if len(data) == 12 else 0

    def _number(self, descriptor: int, option: int) -> int:
        data = self._option(descriptor, socket.SOL_SOCKET, option, 4)
        return int(struct.unpack("=i", data)[0]) if len(data) == 4 else -1

    def _option(self, descriptor: int, level: int, option: int, size: int) -> bytes:
        buffer, length = ctypes.create_string_buffer(size), ctypes.c_uint(size)
        if self._libc is None or self._libc.getsockopt(descriptor, level, option, buffer, ctypes.byref(length)):
            return b""
        return buffer.raw[: length.value]

    def _address(self, function: str, descriptor: int) -> str:
        buffer, length = ctypes.create_string_buffer(_ADDRESS_BYTES), ctypes.c_uint(_ADDRESS_BYTES)
        if self._libc is None or getattr(self._libc, function)(descriptor, buffer, ctypes.byref(length)):
            return ""
        return format_address(buffer.raw[: length.value])


def format_address(data: bytes) -> str:
    """Returns: A `struct sockaddr` as `host:port`, or as the path of a Unix socket; empty for others."""
    family = int.from_bytes(data[:2], sys.byteorder)
    if family == socket.AF_INET and len(data) >= 8:
        return f"{socket.inet_ntop(socket.AF_INET, data[4:8])}:{int.from_bytes(data[2:4], 'big')}"
    if family == socket.AF_INET6 and len(data) >= 24:
        host = socket.inet_ntop(socket.AF_INET6, data[8:24])
        port = int.from_bytes(data[2:4], "big")
        return f"{host[7:]}:{port}" if host.startswith("::ffff:") else f"[{host}]:{port}"
    if family == socket.AF_UNIX:
        path = data[2:]
        return f"@{os.fsdecode(path[1:])}" if path[:1] == b"\0" else os.fsdecode(path.partition(b"\0")[0])
    return ""
