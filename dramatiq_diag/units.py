"""Durations and sizes for a person's eyes, on pages and in terminals alike."""

from __future__ import annotations

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def duration(duration_ms: float | None) -> str:
    """Returns: A duration for a person."""
    if duration_ms is None:
        return "-"
    return f"{duration_ms:.1f} ms" if duration_ms < 1000 else f"{duration_ms / 1000:.2f} s"


def size(size_bytes: float | None) -> str:
    """Returns: A size for a person."""
    if size_bytes is None:
        return "-"
    value, unit = float(size_bytes), 0
    while abs(value) >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.1f} {_UNITS[unit]}" if unit else f"{size_bytes:g} B"
