"""Fixtures of the tests of a worker process."""

from __future__ import annotations

import pytest


@pytest.fixture
def soon(monkeypatch):
    """Workers look at captures without a pause worth mentioning."""
    monkeypatch.setattr("dramatiq_diag.worker.captures.POLL_INTERVAL_S", 0.1)
