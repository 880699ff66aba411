"""Fixtures of the tests of the spool."""

from __future__ import annotations

import pytest

from dramatiq_diag.spool.directory import Spool


@pytest.fixture
def spool(settings):
    spool = Spool(settings())
    spool.open()
    yield spool
    spool.close()
