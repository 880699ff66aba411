"""Descriptors are told apart by what they lead to, and sockets by who is at the other end."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import closing
from pathlib import Path

import pytest

from dramatiq_diag.runtime.waits.descriptors import Descriptors, Endpoint
from dramatiq_diag.runtime.waits.services import service_at

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux's /proc")


def endpoint_of(file):
    return Descriptors(Path("/")).endpoint(file.fileno())


def test_a_unix_socket_has_the_path_of_its_server(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # A path of a socket has at most 107 bytes.
    with closing(socket.socket(socket.AF_UNIX)) as server, closing(socket.socket(socket.AF_UNIX)) as client:
        server.bind(".s.PGSQL.5432")
        server.listen()
        client.connect(".s.PGSQL.5432")

        assert endpoint_of(server) == Endpoint("socket", ".s.PGSQL.5432", is_listening=True)
        assert endpoint_of(client) == Endpoint(
            "socket", ".s.PGSQL.5432, where PostgreSQL commonly listens", ".s.PGSQL.5432"
        )


def test_an_abstract_unix_socket_has_its_name():
    name = f"\0diag-test-{os.getpid()}"
    with closing(socket.socket(socket.AF_UNIX)) as server, closing(socket.socket(socket.AF_UNIX)) as client:
        server.bind(name)
        server.listen()
        client.connect(name)

        assert endpoint_of(client).peer == f"@{name[1:]}"


def test_an_address_of_ipv4_within_ipv6_is_one_of_ipv4():
    with socket.create_server(("127.0.0.1", 0)) as server, closing(socket.socket(socket.AF_INET6)) as client:
        port = server.getsockname()[1]
        client.connect(("::ffff:127.0.0.1", port))

        assert endpoint_of(client).peer == f"127.0.0.1:{port}"


def test_a_datagram_socket_without_a_peer():
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as own:
        own.bind(("127.0.0.1", 0))

        assert endpoint_of(own) == Endpoint("socket", f"anybody who sends to 127.0.0.1:{own.getsockname()[1]}")


def test_the_default_timeout_does_not_change_a_socket():
    """A socket object of the descriptor would set it to non-blocking."""
    with closing(socket.socket()) as own:
        socket.setdefaulttimeout(1)
        try:
            endpoint_of(own)
        finally:
            socket.setdefaulttimeout(None)

        assert os.get_blocking(own.fileno())


def test_a_descriptor_that_is_closed():
    reading, writing = os.pipe()
    os.close(reading)
    os.close(writing)

    assert Descriptors(Path("/")).endpoint(reading).kind == "unknown"


@pytest.mark.parametrize(
    ("peer", "service"),
    [
        ("10.0.0.5:5432", "PostgreSQL"),
        ("[::1]:6379", "Redis"),
        ("10.0.0.5:5672", "RabbitMQ"),
        ("/run/postgresql/.s.PGSQL.6432", "PgBouncer"),
        ("/run/mysqld/mysqld.sock", "MySQL"),
        ("10.0.0.5:59999", None),
        ("/tmp/mine.sock", None),
    ],
)
def test_what_commonly_listens(peer, service):
    assert service_at(peer) == service
