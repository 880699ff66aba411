"""Pauses of the garbage collector: one lasts until its last user ends it."""

from __future__ import annotations

import gc

import pytest

from dramatiq_diag.runtime.gc_pause import GcPause


def test_a_pause_lasts_until_the_last_of_its_users_ends_it():
    one, other = GcPause(), GcPause()
    one.begin()
    other.begin()
    one.end()
    one.end()
    assert not gc.isenabled()
    other.end()
    assert gc.isenabled()


def test_a_pause_leaves_a_collector_alone_that_the_application_stopped():
    gc.disable()
    try:
        pause = GcPause()
        pause.begin()
        pause.end()
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_pause_ends_with_its_block_whatever_is_raised_there():
    def fail() -> None:
        assert not gc.isenabled()
        raise KeyError

    with pytest.raises(KeyError), GcPause():
        fail()
    assert gc.isenabled()
