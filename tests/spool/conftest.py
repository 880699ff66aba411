"""Fixtures of the tests of the spool."""

from __future__ import annotations

import pytest

from dramatiq_diag.spool.directory import Spool


@pytest.fixture
def spool(settings):
    spool = Spool(settings())
    spool.open()
    yield spool
    for path in spool.owner.glob("*.entry") if spool.owner is not None else ():
        path.unlink()
    spool.close()
