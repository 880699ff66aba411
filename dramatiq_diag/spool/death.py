"""Says why the process of an interrupted run died, which run grew it, and which were victims."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..runtime.memory_state import NEAR, MemoryState
from ..statuses import MemoryRole
from ..text import format_size
from .memory_story import MemoryStory, NotedRun
from .owner_state import Left

#: The directory that has `proc`.
_ROOT = Path("/")

#: A story counts if it is at most so much older than the last state of the process, in seconds.
_FRESH_S = 2.0

#: A growth that needs longer than this to fill the memory, in seconds, has not filled it: looks come at least once a
#: second, so there would have been another one. Something else happened after the last look.
_LONGEST_S = 2.5

#: A run that touched this part of what the growing one has touched may have had a part in it.
_MUCH = 0.2

#: The most calls in a reason.
_MAX_CALLS = 3

_FOR_LACK = "Its process was killed, as it seems for lack of memory."


@dataclass(frozen=True, kw_only=True)
class Death:
    """What is known of the death of a run's process."""

    reason: str
    role: MemoryRole | None = None
    touched_bytes: int | None = None
    "What the run had touched at the last look."


def death_of(run_id: uuid.UUID, started_at_s: float, left: Left, root: Path = _ROOT) -> Death:
    """Returns: What the process has left about its death, seen from one of its runs.

    Parameters:
      started_at_s: The start of the run, in seconds since the epoch.
      left: What the process left. Only the types of its values are checked.
      root: The directory that has `proc`.
    """
    story = left.story
    if story is not None and left.state is not None and story.at < left.state.at - _FRESH_S:
        story = None
    states = left._replace(story=story).states()
    if not states:
        return Death(reason="Its process died before there was a look at its memory.")
    at, memory = states[-1]
    note = None if story is None else next((each for each in story.runs if each.run_id == run_id), None)
    touched_bytes = None if note is None else note.touched_bytes
    is_late = at < started_at_s
    late = " This task began after that look." if is_late else ""
    if not memory.looks_like_oom_kill(root):
        return Death(reason=_without_lack(memory, root) + late, touched_bytes=touched_bytes)
    role, text = (None, "") if story is None else _part_in(story, note, is_late=is_late)
    text = text or "It is not known which task grew the process: no look saw a task that did."
    return Death(reason=f"{_FOR_LACK} {text}{late}", role=role, touched_bytes=touched_bytes)


def _without_lack(memory: MemoryState, root: Path) -> str:
    if memory.used_share < NEAR:
        return "Its process died; at the last look its memory was far from its limits."
    kills = memory.oom_kills_since(root)
    known = "; since then the kernel has killed no process for lack of memory" if kills == 0 else ""
    return f"Its process died; at the last look {memory.used_share:.0%} of the memory was used{known}."


def _part_in(story: MemoryStory, note: NotedRun | None, *, is_late: bool) -> tuple[MemoryRole | None, str]:
    """Returns: The role of a run in the death for lack of memory, and sentences; nothing where it is not known.

    Parameters:
      note: What the last look saw of the run; None if it did not see it.
      is_late: Whether the run began after that look. It may have filled the rest.
    """
    room_bytes = story.state.room_bytes()
    # Tasks that fill and free buffers may have again the most that they had together, at any moment.
    swing_bytes = max((story.highest_rss_bytes or 0) - story.state.rss_bytes, 0)
    if story.bytes_per_s is not None and room_bytes - swing_bytes > _LONGEST_S * story.bytes_per_s:
        room = format_size(round(room_bytes))
        text = f"At the last look the process was growing{_by(story)}, and had {room} left"
        return None, f"{text}: what filled these was not seen."
    growers = [each for each in story.runs if each.bytes_per_s is not None]
    if note is not None and note in growers:
        others = [each for each in growers if each is not note]
        return MemoryRole.GROWER, _of_grower(story, note, others)
    if growers:
        tasks = "; ".join(f"{_task(each)} was growing by {_rate(each)}{_place(each)}" for each in growers)
        return _beside(growers, note, f"At the last look {tasks}.", is_late=is_late)
    if story.shared_grows:
        text = f"At the last look the event loop's thread was growing the process{_by(story)}"
        if note is None or note.shares_thread:
            return None, f"{text}; which of the async tasks on it did cannot be told."
        return _beside((), note, f"{text}.", is_late=is_late)
    if story.other_grows:
        text = f"At the last look threads that executed no diagnosed task were growing the process{_by(story)}"
        return None, f"{text}: other threads of the application, or those of many short tasks that had ended."
    if story.bytes_per_s is not None:
        return None, f"At the last look the process was growing{_by(story)}; which of its tasks did cannot be told."
    return None, ""


def _beside(
    growers: Sequence[NotedRun], note: NotedRun | None, text: str, *, is_late: bool
) -> tuple[MemoryRole | None, str]:
    """Returns: The role of a run beside those that grew the process, and sentences that begin with *text*."""
    if is_late:
        return None, text
    touched = note.touched_bytes or 0 if note is not None else 0
    most = max((each.touched_bytes or 0 for each in growers), default=0)
    if most and touched >= _MUCH * most:
        size = format_size(touched)
        return None, f"{text} This task had touched {size} itself; how much of it was kept is not known."
    return MemoryRole.VICTIM, f"{text} This task was a victim."


def _of_grower(story: MemoryStory, note: NotedRun, others: Sequence[NotedRun]) -> str:
    seconds = story.seconds if note.seconds is None else note.seconds
    over = "" if seconds is None else f", averaged over the last {seconds:.1f} s"
    text = f"At the last look this task was growing by {_rate(note)}{over}"
    if note.touched_bytes is not None:
        text += f", and had touched {format_size(note.touched_bytes)}"
    text += f"; it was{_place(note)}." if note.calls else "."
    if others:
        text += f" So was {' and '.join(f'{_task(each)}{_place(each)}' for each in others)}."
    return text


def _task(note: NotedRun) -> str:
    return f"the task {note.task_id} (actor {note.actor_name})"


def _rate(note: NotedRun) -> str:
    return f"{format_size(round(note.bytes_per_s or 0))}/s"


def _by(story: MemoryStory) -> str:
    return "" if story.bytes_per_s is None else f" by {format_size(round(story.bytes_per_s))}/s"


def _place(note: NotedRun) -> str:
    """Returns: Where a run was, with a space or a comma before it; empty if that is not known."""
    calls = [f"{call.function} ({call.file}:{call.line})" for call in note.calls[:_MAX_CALLS]]
    return f" at {', called by '.join(calls)}" if calls else ""
