"""Holds the saved runs that wait for the store: the oldest in memory, the rest is read again from the spool."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Container, Iterable, Sequence
from itertools import islice

from .directory import Spool
from .entry import Entry

#: The most entries that are held in memory, about 700 bytes each.
MAX_HELD = 10_000

#: The most bytes in memory of entries that the disk did not take.
MAX_HELD_BYTES = 16 * 1024**2


class Backlog:
    """Entries in the order of their runs' end; filled by the saver, emptied by the publisher.

    Parameters:
      spool: Where the entries are.
      unsaved: The ids of runs whose entries are not whole yet; `add` takes them off.
    """

    def __init__(self, spool: Spool, unsaved: set[uuid.UUID]) -> None:
        self.dropped = 0
        "Entries that neither the disk nor the memory had room for."
        self.lost = 0
        "Entries that someone removed from the spool before they were published."
        self._spool = spool
        self._unsaved = unsaved
        self._held: dict[uuid.UUID, Entry] = {}
        "Run id -> entry, oldest first."
        self._held_bytes = 0
        "The bytes in memory of held entries that the disk did not take."
        self._overflowed = False
        "Whether there are entries in the spool that come after those held."
        self._added = self._done = 0
        self._changed = threading.Condition(threading.Lock())

    def __len__(self) -> int:
        return self._added - self._done

    @property
    def unsaved(self) -> tuple[uuid.UUID, ...]:
        """The ids of the runs whose entries are not complete."""
        return tuple(self._unsaved)  # Other threads change the set; `tuple` copies it at once.

    def add(self, entries: Sequence[Entry]) -> None:
        """Takes entries that are whole. Past `MAX_HELD` it holds only those that the disk did not take."""
        with self._changed:
            for entry in entries:
                self._added += 1
                if not entry.in_memory and (self._overflowed or len(self._held) >= MAX_HELD):
                    self._overflowed = True
                elif len(self._held) < 2 * MAX_HELD and self._held_bytes + entry.memory_bytes <= MAX_HELD_BYTES:
                    self._held[entry.run_id] = entry
                    self._held_bytes += entry.memory_bytes
                else:
                    self.dropped += 1
                    self._done += 1
                # Under the lock: `_find` must see each entry either as unsaved or as added, never as neither.
                self._unsaved.discard(entry.run_id)
            self._changed.notify_all()

    def wait_until_done(self, count: int, timeout_s: float) -> bool:
        """Waits until so many entries, of all that were ever added, are done. Returns: Whether they are."""
        with self._changed:
            return self._changed.wait_for(lambda: self._done >= count, timeout_s)

    def oldest(self, count: int, *, but: Iterable[uuid.UUID]) -> list[Entry]:
        """Returns: The next entries, at most *count*, which stay until they are `done`; without those that are refused.

        Raises:
          SpoolError: When the spool cannot be read.
        """
        with self._changed:
            if not self._held and self._overflowed:
                self._find({*but, *tuple(self._unsaved)})  # Other threads change the set; `tuple` copies it at once.
            return list(islice(self._held.values(), count))

    def _find(self, but: Container[uuid.UUID]) -> None:
        """Holds the oldest that are in the spool, and counts as lost what should be there and is not."""
        owner = self._spool.owner
        found = [] if owner is None else self._spool.entries(owner, MAX_HELD, but=but)
        self._held = {entry.run_id: entry for entry in found}  # None of them was held, so no bytes were.
        self._overflowed = len(found) == MAX_HELD
        if not self._overflowed:
            missing = max(len(self) - len(found), 0)
            self.lost += missing
            self._done += missing
            self._changed.notify_all()

    def done(self, entry: Entry) -> None:
        """Lets go of an entry."""
        with self._changed:
            if self._held.pop(entry.run_id, None) is not None:
                self._held_bytes -= entry.memory_bytes
                self._done += 1
                self._changed.notify_all()
