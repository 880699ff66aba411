"""Fixtures of the tests of time profiles."""

from __future__ import annotations

import pytest

from support.sampling import DrivenSampler


@pytest.fixture
def driven_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives workers a sampler without a thread."""
    monkeypatch.setattr("dramatiq_diag.collectors.time_profile.collector.Sampler", DrivenSampler)
