"""Fixtures of the tests of a worker process."""

from __future__ import annotations

import pytest

from dramatiq_diag.worker.tuning import Tuning


@pytest.fixture
def soon():
    """A worker looks at captures without a pause worth mentioning."""
    return Tuning(attention_s=0.1)
