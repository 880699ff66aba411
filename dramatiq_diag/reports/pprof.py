"""Renders profiles in the format of pprof, which Go's tools, Pyroscope, Parca and Grafana read.

It is a gzipped message of Protocol Buffers: https://github.com/google/pprof/blob/main/proto/profile.proto.
Its parts are numbers and texts alone, so it is written here: the package `protobuf` is one more compiled dependency,
whose version other packages of an application fix, and the numbers of the fields would have to stand here as well.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from typing import BinaryIO

from .errors import ReportError
from .profiles import Frame, Profile, Sample

#: The numbers of the fields of `Profile`; those of its parts are given where they are written.
_SAMPLE_TYPE, _SAMPLE, _MAPPING, _LOCATION, _FUNCTION, _STRING = 1, 2, 3, 4, 5, 6
_TIME_NANOS, _DURATION_NANOS, _PERIOD_TYPE, _PERIOD, _COMMENT, _DEFAULT_SAMPLE_TYPE = 9, 10, 11, 12, 13, 14

_NANOSECONDS = 10**9
_NS_PER_MS = 10**6
_MAX_NUMBER = 2**63 - 1


#: The unit of a profile -> name and unit of each value of a sample; the last one is shown by default.
_TYPES = {"ms": [("wall", "nanoseconds")], "bytes": [("inuse_objects", "count"), ("inuse_space", "bytes")]}


def write_pprof(profile: Profile, target: BinaryIO) -> None:
    """Writes a profile: nanoseconds of wall time, or allocations. Raises: ReportError when a number does not fit."""
    try:
        target.write(_Writer(_TYPES[profile.unit]).write(profile))
    except (ValueError, OverflowError) as error:
        raise ReportError(f"The stored profile cannot be rendered, as a number in it does not fit: {error}.") from error


class _Writer:
    """Numbers the parts of one profile, and writes them."""

    def __init__(self, types: list[tuple[str, str]]) -> None:
        self._types = types
        self._strings: dict[str, int] = {"": 0}
        self._functions: dict[tuple[str, str, int], int] = {}
        self._locations: dict[Frame, int] = {}

    def write(self, profile: Profile) -> bytes:
        """Returns: The gzipped message. Raises: ValueError when a number is negative, or has more than 63 bits."""
        samples = [self._sample(sample, profile.unit) for sample in profile.samples]
        locations = [self._location(number, frame) for frame, number in self._locations.items()]
        functions = [self._function(number, *function) for function, number in self._functions.items()]
        last = self._types[-1]
        message = [
            *(_part(_SAMPLE_TYPE, self._type(*kind)) for kind in self._types),
            *(_part(_SAMPLE, sample) for sample in samples),
            # A mapping that has functions, files and lines (7 to 9): so pprof looks for no binary.
            _part(_MAPPING, _number(1, 1) + _number(7, 1) + _number(8, 1) + _number(9, 1)),
            *(_part(_LOCATION, location) for location in locations),
            *(_part(_FUNCTION, function) for function in functions),
            _number(_TIME_NANOS, int(profile.started_at_s * _NANOSECONDS)),
            _number(_DURATION_NANOS, int(profile.duration_s * _NANOSECONDS)),
            _part(_PERIOD_TYPE, self._type(*last)),
            _number(_PERIOD, int(profile.interval_s * _NANOSECONDS)),
            _number(_COMMENT, self._string(f"dramatiq_diag: {profile.title}")),
            _number(_DEFAULT_SAMPLE_TYPE, self._string(last[0])),
        ]
        message += (_part(_STRING, text.encode("utf-8", "replace")) for text in self._strings)
        return gzip.compress(b"".join(message), mtime=0)

    def _type(self, name: str, unit: str) -> bytes:
        return _number(1, self._string(name)) + _number(2, self._string(unit))

    def _sample(self, sample: Sample, unit: str) -> bytes:
        values = [round(sample.value * _NS_PER_MS)] if unit == "ms" else [sample.allocations, round(sample.value)]
        stack = [self._locations.setdefault(frame, len(self._locations) + 1) for frame in reversed(sample.frames)]
        return _numbers(1, stack) + _numbers(2, values)

    def _location(self, number: int, frame: Frame) -> bytes:
        key = frame.function, frame.file, frame.first_line
        function = self._functions.setdefault(key, len(self._functions) + 1)
        line = _number(1, function) + _number(2, frame.line or frame.first_line)
        return _number(1, number) + _number(2, 1) + _part(4, line)

    def _function(self, number: int, name: str, file: str, first_line: int) -> bytes:
        # Without a system name (3): pprof would take `<genexpr>` in it for a template of C++, and cut it off.
        return (
            _number(1, number)
            + _number(2, self._string(name))
            + _number(4, self._string(file))
            + _number(5, first_line)
        )

    def _string(self, text: str) -> int:
        return self._strings.setdefault(text, len(self._strings))


def _number(field: int, value: int) -> bytes:
    """Returns: A field with a number; nothing for 0, which is the default."""
    return _varint(field << 3) + _varint(value) if value else b""


def _numbers(field: int, values: Iterable[int]) -> bytes:
    """Returns: A field with several numbers, packed."""
    return _part(field, b"".join(map(_varint, values)))


def _part(field: int, data: bytes) -> bytes:
    """Returns: A field with a text, or with a message."""
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    if not 0 <= value <= _MAX_NUMBER:
        raise ValueError(f"{value} is out of range")
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
