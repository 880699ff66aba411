"""How large a time profile may become."""

from __future__ import annotations

import pytest

from dramatiq_diag.collectors.time_profile.sampler import MAX_STACKS, Profile
from dramatiq_diag.collectors.time_profile.session import MAX_NODES, prune
from dramatiq_diag.runtime.stacks import OTHER
from support.collectors import spin


def test_the_memory_of_a_profile_is_bounded_and_its_lightest_stacks_are_folded():
    # Given a profile with one heavy stack, and more light ones below one caller than a profile may hold.
    profile = Profile(1, spin.__code__, is_async=False)
    profile.add(("root", 1, "heavy", 1), 10.0)
    for number in range(3 * MAX_STACKS):
        profile.add(("root", 1, "caller", 1, f"light_{number}", 1, "leaf", 1), 0.001)

    # Then the heavy one is as it was, no time is lost, and the caller of what was folded is still known.
    assert len(profile.seconds) <= MAX_STACKS
    assert profile.seconds["root", 1, "heavy", 1] == pytest.approx(10.0)
    assert sum(profile.seconds.values()) == pytest.approx(10.0 + 3 * MAX_STACKS * 0.001)
    assert profile.seconds["root", 1, "caller", 1, OTHER, 0] > 0.001


def test_a_large_profile_is_cut_down_to_its_heaviest_calls():
    records = [(["thread", "root", f"caller_{n % 50}", f"leaf_{n}"], 0.001 * (n % 7)) for n in range(3 * MAX_NODES)]
    records.append((["thread", "root", "heavy\x01cClass\x01l7"], 100.0))

    pruned = prune(records)

    calls = {tuple(stack[:depth]) for stack, _ in pruned for depth in range(1, len(stack) + 1)}
    assert len(calls) <= MAX_NODES + 50 + 1  # Each caller may have one bucket, and so may the root.
    assert sum(spent for _, spent in pruned) == pytest.approx(sum(spent for _, spent in records))
    assert (["thread", "root", "heavy\x01cClass\x01l7"], 100.0) in pruned


def test_a_small_profile_is_stored_as_it_is():
    records = [(["thread", "root\x01l1", f"leaf_{n}\x01l2"], 0.001) for n in range(100)]

    assert prune(records) == records
