"""Holds the saved runs that wait for the store: the oldest in memory; the others are read again from the spool."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Collection, Container, Sequence
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
      unsaved: The ids of runs whose entries are not complete yet; `add` removes them.
      max_held: The most entries that are held in memory; twice as many, if the disk did not take them.
      max_held_bytes: The most bytes in memory of entries that the disk did not take.
    """

    def __init__(
        self,
        spool: Spool,
        unsaved: set[uuid.UUID],
        *,
        max_held: int = MAX_HELD,
        max_held_bytes: int = MAX_HELD_BYTES,
    ) -> None:
        self.dropped = 0
        "The number of entries for which neither the disk nor the memory had room."
        self.lost = 0
        "The number of entries that someone removed from the spool before they were published."
        self._spool = spool
        self._unsaved = unsaved
        self._max_held = max_held
        self._max_held_bytes = max_held_bytes
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

    def count_by_place(self) -> tuple[int, int]:
        """Returns: How many of the entries are on the disk, and how many end with the process.

        The second number is that of the entries which the disk did not take, in whole or in part.
        """
        with self._changed:
            in_memory = sum(entry.in_memory for entry in self._held.values())
            return len(self) - in_memory, in_memory

    @property
    def unsaved(self) -> tuple[uuid.UUID, ...]:
        """The ids of the runs whose entries are not complete."""
        return tuple(self._unsaved)  # Other threads change the set; `tuple` copies it at once.

    def add(self, entries: Sequence[Entry]) -> None:
        """Takes complete entries. Past `max_held` it holds only those that the disk did not take."""
        with self._changed:
            for entry in entries:
                self._added += 1
                if not entry.in_memory and (self._overflowed or len(self._held) >= self._max_held):
                    self._overflowed = True
                elif len(self._held) < 2 * self._max_held and self._has_room(entry):
                    self._held[entry.run_id] = entry
                    self._held_bytes += entry.memory_bytes
                else:
                    self.dropped += 1
                    self._done += 1
                # Under the lock: `_find` must see each entry either as unsaved or as added, never as neither.
                self._unsaved.discard(entry.run_id)
            self._changed.notify_all()

    def _has_room(self, entry: Entry) -> bool:
        return self._held_bytes + entry.memory_bytes <= self._max_held_bytes

    def wait_until_done(self, count: int, timeout_s: float) -> bool:
        """Waits until so many entries, of all that were ever added, are done. Returns: Whether they are."""
        with self._changed:
            return self._changed.wait_for(lambda: self._done >= count, timeout_s)

    def oldest(self, count: int, *, but: Collection[uuid.UUID]) -> list[Entry]:
        """Returns: The next entries, at most *count*, without those in *but*. They stay until they are `done`.

        Raises:
          SpoolError: When the spool cannot be read.
        """
        with self._changed:
            if not self._held and self._overflowed:
                self._find({*but, *self.unsaved})
            return list(islice((entry for run_id, entry in self._held.items() if run_id not in but), count))

    def _find(self, but: Container[uuid.UUID]) -> None:
        """Reads the oldest entries from the spool again, and counts as lost those that should be there and are not."""
        owner = self._spool.owner
        found = [] if owner is None else self._spool.entries(owner, self._max_held, but=but)
        self._held = {entry.run_id: entry for entry in found}  # None of them was held, so no bytes were.
        self._overflowed = len(found) == self._max_held
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
