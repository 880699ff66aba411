"""Fixtures of the tests of a worker process."""

from __future__ import annotations

import pytest

from dramatiq_diag.worker import captures as capturing


@pytest.fixture
def soon(monkeypatch):
    """Workers look at captures without a pause worth mentioning."""
    monkeypatch.setattr(capturing, "POLL_INTERVAL_S", 0.1)
    monkeypatch.setattr(capturing, "_EAGER_INTERVAL_S", 0.02)
