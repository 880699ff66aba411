"""The one grammar of durations, sizes and moments."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from dramatiq_diag.text import (
    MAX_SIZE_BYTES,
    counted,
    format_duration,
    format_size,
    parse_duration_ms,
    parse_moment,
    parse_size_bytes,
    printable,
)


@pytest.mark.parametrize(
    ("text", "duration_ms"),
    [
        ("500ms", 500),
        ("90s", 90_000),
        (" 1.5 s ", 1500),
        ("15m", 900_000),
        ("15min", 900_000),
        ("2h", 7_200_000),
        ("3d", 259_200_000),
        ("1w", 604_800_000),
    ],
)
def test_a_duration_is_read(text, duration_ms):
    assert parse_duration_ms(text) == duration_ms


@pytest.mark.parametrize("text", ["", "90", "s", "-1s", "1e3s", "1 month", "2H", "1h30m", "9" * 13 + "s", "\uff11s"])
def test_a_duration_that_is_none_is_named(text):
    with pytest.raises(ValueError, match="not a duration such as 500ms") as caught:
        parse_duration_ms(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("value", "size_bytes"),
    [(0, 0), (1.0, 1), ("12", 12), ("512MiB", 512 * 1024**2), ("1.5 GB", 1_500_000_000), ("2kib", 2048), ("7b", 7)],
)
def test_a_size_is_read(value, size_bytes):
    assert parse_size_bytes(value) == size_bytes


@pytest.mark.parametrize(
    "value",
    [-1, 1.5, True, None, float("nan"), float("inf"), "", "lots", "-1MiB", "1Ki", "5 TB/s", "\uff15", MAX_SIZE_BYTES],
)
def test_a_size_that_is_none_is_refused(value):
    with pytest.raises(ValueError, match="not a size such as 500MiB"):
        parse_size_bytes(value)


@pytest.mark.parametrize("value", [5, "5", "0", "0MiB"])
def test_a_size_may_need_a_unit(value):
    with pytest.raises(ValueError, match="not a size such as 500MiB"):
        parse_size_bytes(value, needs_unit=True)
    assert parse_size_bytes("5MiB", needs_unit=True) == 5 * 1024**2


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-22", datetime(2026, 11, 22, tzinfo=UTC)),
        ("2026-11-22T13:40", datetime(2026, 11, 22, 13, 40, tzinfo=UTC)),
        ("2026-11-22T13:40:05.25Z", datetime(2026, 11, 22, 13, 40, 5, 250_000, tzinfo=UTC)),
        ("2026-11-22T13:40+02:00", datetime(2026, 11, 22, 11, 40, tzinfo=UTC)),
    ],
)
def test_a_moment_is_read_in_utc(text, moment):
    assert parse_moment(text) == moment
    assert parse_moment(text).tzinfo is UTC


@pytest.mark.parametrize(("text", "age"), [("90s", timedelta(seconds=90)), ("3d", timedelta(days=3))])
def test_a_moment_may_be_an_age(text, age):
    before = datetime.now(UTC)

    assert before - age <= parse_moment(text) <= datetime.now(UTC) - age


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "999999999999w", "0001-01-01T00:00+14:00", "2"])
def test_a_moment_that_is_none_is_named(text):
    with pytest.raises(ValueError, match="neither a time") as caught:
        parse_moment(text)
    assert repr(text) in str(caught.value)


def test_figures_are_written_for_people():
    assert [format_duration(value) for value in (None, 0.04, 999.94, 1000, 90_000)] == [
        "-",
        "0.0 ms",
        "999.9 ms",
        "1.00 s",
        "90.00 s",
    ]
    assert [format_size(value) for value in (None, 0, 1023, 1024, -2048, 3 * 1024**3, 1024**5)] == [
        "-",
        "0 B",
        "1023 B",
        "1.0 KiB",
        "-2.0 KiB",
        "3.0 GiB",
        "1024.0 TiB",
    ]


def test_text_that_is_printed_cannot_steer_a_terminal():
    assert printable("Grüße\x1b[2J\r\n\u202e\u2028x") == "Grüße\ufffd[2J\ufffd\ufffd\ufffd\ufffdx"


def test_one_thing_is_counted_without_the_plural():
    assert [counted(number, "run") for number in range(3)] == ["0 runs", "1 run", "2 runs"]
    assert [counted(number, "entry", "entries") for number in (1, 2)] == ["1 entry", "2 entries"]
