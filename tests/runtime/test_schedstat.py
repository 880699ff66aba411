"""What the kernel's `schedstat` file tells of a thread."""

from __future__ import annotations

import pytest

from dramatiq_diag.runtime.schedstat import Schedstat


def test_it_has_the_time_on_the_run_queue_and_the_turns():
    assert Schedstat.parse(b"123456789 2500000000 17\n") == Schedstat(run_queue_s=2.5, turns=17)


@pytest.mark.parametrize("text", [b"0 0 0\n", b"", b"1 2\n", b"a b c\n"])
def test_a_kernel_that_does_not_count_tells_nothing(text):
    assert Schedstat.parse(text) is None
