"""Calls that note how far they came."""

from __future__ import annotations

import pytest

from dramatiq_diag.runtime.interrupts import NotedCall


def test_a_call_notes_that_it_began_and_returned():
    seen: list[tuple[bool, bool]] = []
    noted = NotedCall(lambda: seen.append((noted.has_begun, noted.has_returned)))

    assert (noted.has_begun, noted.has_returned) == (False, False)
    noted.make()
    assert seen == [(True, False)]
    assert (noted.has_begun, noted.has_returned) == (True, True)


def test_a_call_that_an_exception_ended_has_begun_and_not_returned():
    noted = NotedCall(lambda: [].pop())

    with pytest.raises(IndexError):
        noted.make()
    assert (noted.has_begun, noted.has_returned) == (True, False)
