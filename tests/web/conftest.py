"""Fixtures of the web tests: a store of real files and rows, and the app on top of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dramatiq_diag import Settings
from dramatiq_diag.web.server import Server
from support.web import Site


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Makes a site with the settings given, and closes it after the test."""
    sites: list[Site] = []

    def make(**values: Any) -> Site:
        sites.append(Site(Settings(**{"data_dir": tmp_path / "data"} | values)))
        return sites[-1]

    yield make
    for site in sites:
        site.close()


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    return make_site()


@pytest.fixture
def site_on_any_database(make_site: Callable[..., Site], database_url: str | None) -> Site:
    return make_site(database_url=database_url)


@pytest.fixture
def start_server() -> Iterator[Callable[..., Server]]:
    """Starts servers in threads on free ports, and stops them after the test."""
    servers: list[Server] = []

    def start(settings: Settings, **options: Any) -> Server:
        servers.append(Server(settings, **{"port": 0} | options))
        return servers[-1].start()

    yield start
    for server in servers:
        server.close()
