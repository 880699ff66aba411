"""The small memory curve in the row of a run."""

from __future__ import annotations

import io

import pytest

from dramatiq_diag.store.memory_curves import LENGTH, MOST, read_curve, write_curve

HEADER = b"# Seconds\tProcess RSS in MB\n"


def curve(*samples: tuple[float, float], rest: bytes = b"") -> str | None:
    log = b"".join(b"%.3f\t%.3f\n" % sample for sample in samples)
    return write_curve(io.BytesIO(HEADER + log + rest))


def test_it_goes_from_corner_to_corner_in_time_and_in_memory() -> None:
    text = curve((0, 10), (2, 110), (8, 60))
    assert text is not None
    assert read_curve(text) == [(0, 0), (round(MOST / 4), MOST), (MOST, round(MOST / 2))]


def test_one_of_a_long_log_is_short_and_has_the_peak_and_the_ends() -> None:
    samples = [(second * 2.0, 50.0 + second / 20_000) for second in range(100_000)]
    samples[70_000] = (140_000.0, 400.0)
    text = curve(*samples)
    assert text is not None
    points = read_curve(text)
    assert len(text) <= LENGTH
    assert points == sorted(points)
    assert (points[0], points[-1][0]) == ((0, 0), MOST)
    assert [time for time, memory in points if memory == MOST] == [round(0.7 * MOST)]


def test_noise_does_not_look_like_growth() -> None:
    text = curve((0, 100.0), (1, 100.1))
    assert text is not None
    assert max(memory for _, memory in read_curve(text)) < MOST / 10


def test_a_torn_last_line_is_left_out() -> None:
    assert curve((0, 10), (2, 20), rest=b"4.000\t9") == curve((0, 10), (2, 20))


@pytest.mark.parametrize("data", [b"", b"\0" * 10_000, b"\n" * 10_000, HEADER, b"0.000\t1.000\n"], ids=len)
def test_less_than_two_samples_are_no_curve(data: bytes) -> None:
    assert write_curve(io.BytesIO(data)) is None


@pytest.mark.parametrize(("text", "points"), [("", []), ("A", []), ("AA??", [(0, 0), (0, 0)])])
def test_a_text_that_is_not_ours_is_drawn_all_the_same(text: str, points: list[tuple[int, int]]) -> None:
    assert read_curve(text) == points
