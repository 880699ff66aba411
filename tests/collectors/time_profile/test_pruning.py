"""How large a stored time profile may become."""

from __future__ import annotations

import pytest

from dramatiq_diag.collectors.time_profile.pruning import MAX_NODES, prune


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
