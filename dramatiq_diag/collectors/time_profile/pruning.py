"""Cuts a large time profile down to its heaviest calls, so that its report stays small."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence

#: pyinstrument's markers inside the description of a frame: of any attribute, and of the line.
ATTRIBUTES = "\x01"
LINE_NUMBER = "\x01l"

#: The description of the frame that stands for all that was cut off.
OTHER_FRAME = "\0".join(("[other stacks]", "", "0"))

#: Calls in the tree of a stored profile: with more, the report would take megabytes and seconds.
MAX_NODES = 5000

#: The size of a frame while a profile is pruned, in bytes.
_FRAME_BYTES = 4

#: Frames, root first, and the seconds spent in the last one.
FrameRecord = tuple[list[str], float]


def prune(records: list[FrameRecord]) -> list[FrameRecord]:
    """Keeps the `MAX_NODES` heaviest calls and lines of a large profile, with `OTHER_FRAME` below them for the rest.

    Of the lines in a stack only that of its last function is kept then.

    Returns:
      The same records if there are few; in any case records with the same total time.
    """
    paths = _paths([stack for stack, _ in records])
    places = sorted(range(len(paths)), key=paths.__getitem__)
    weights = array("d")
    for place, nodes in _walk(paths, places):
        weights.extend([0.0] * (nodes[-1] + 1 - len(weights)) if nodes else ())
        for node in nodes:
            weights[node] += records[place][1]
    if len(weights) <= MAX_NODES:
        return records
    lightest_s = heapq.nlargest(MAX_NODES + 1, weights)[-1]
    kept_depths = [0] * len(records)
    for place, nodes in _walk(paths, places):
        kept_depths[place] = sum(weights[node] > lightest_s for node in nodes)
    without_line = {frame: frame.partition(LINE_NUMBER)[0] for stack, _ in records for frame in stack}
    without_line[OTHER_FRAME] = OTHER_FRAME
    merged: dict[tuple[str, ...], float] = {}
    for kept, (stack, spent_s) in zip(kept_depths, records, strict=True):
        cut = _cut(stack, kept, without_line)
        merged[cut] = merged.get(cut, 0.0) + spent_s
    return [(list(stack), spent_s) for stack, spent_s in merged.items()]


def _paths(stacks: Sequence[Sequence[str]]) -> list[bytes]:
    """Returns: Each stack as bytes: four for each frame without its attributes, then four for its last line."""
    numbers: dict[str, int] = {}
    coded: dict[str, bytes] = {}
    for stack in stacks:
        for frame in stack:
            if frame not in coded:
                number = numbers.setdefault(frame.partition(ATTRIBUTES)[0], len(numbers))
                coded[frame] = number.to_bytes(_FRAME_BYTES)
    lines = (_last_line(stack) for stack in stacks)
    ends = [b"" if line is None else numbers.setdefault(line, len(numbers)).to_bytes(_FRAME_BYTES) for line in lines]
    return [b"".join((*map(coded.__getitem__, stack), end)) for stack, end in zip(stacks, ends, strict=True)]


def _last_line(stack: Sequence[str]) -> str | None:
    """Returns: The line that the innermost function with a line is at, as an attribute of its frame."""
    found = (text for frame in reversed(stack) if (text := frame.partition(LINE_NUMBER)[2]))
    line = next(found, None)
    return None if line is None else f"{LINE_NUMBER}{line}"


def _cut(stack: Sequence[str], kept: int, without_line: Mapping[str, str]) -> tuple[str, ...]:
    """Returns: The first *kept* functions of a stack without their lines; the last line if that is kept as well."""
    frames = [without_line[frame] for frame in stack[:kept]]
    if kept < len(stack):
        return (*frames, OTHER_FRAME)
    if kept > len(stack):
        last = max(at for at, frame in enumerate(stack) if LINE_NUMBER in frame)
        frames[last] = stack[last]
    return tuple(frames)


def _walk(paths: Sequence[bytes], places: Iterable[int]) -> Iterator[tuple[int, list[int]]]:
    """Walks the tree of calls that sorted paths make up. The tree is never built: it could be forty times as large.

    Yields:
      The place of each path, and the numbers of its calls; paths that begin alike share numbers.
    """
    before, nodes, count = b"", list[int](), 0
    for place in places:
        path = paths[place]
        nodes = nodes[: _shared_depth(before, path)]
        fresh = len(path) // _FRAME_BYTES - len(nodes)
        nodes += range(count, count + fresh)
        before, count = path, count + fresh
        yield place, nodes


def _shared_depth(path: bytes, other: bytes) -> int:
    depth, deepest = 0, min(len(path), len(other))
    while depth < deepest and path[depth : depth + _FRAME_BYTES] == other[depth : depth + _FRAME_BYTES]:
        depth += _FRAME_BYTES
    return depth // _FRAME_BYTES
