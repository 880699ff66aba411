"""The store as background threads work with it."""

from __future__ import annotations

import threading

from .settings import Settings
from .store import Store


class LazyStore:
    """A store that is made and opened when it is first needed, and opened again after a fault.

    The threads of a process share one, and with it the connections to the database.

    Parameters:
      settings: The settings.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store: Store | None = None
        self._is_open = False
        self._lock = threading.Lock()

    def opened(self) -> Store:
        """Returns: The store, open. Raises: StoreError, NotInstalledError."""
        with self._lock:
            if self._store is None:
                self._store = Store(self._settings)
            if not self._is_open:
                self._store.open()
                self._is_open = True
            return self._store

    def reopen(self) -> None:
        """Has it opened again before its next use: after a fault, schema and disk may not be what they were."""
        self._is_open = False

    def close(self) -> None:
        """Closes the connections, if there are any."""
        if self._store is not None:
            self._store.close()
