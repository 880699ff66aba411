"""The store as background threads work with it."""

from __future__ import annotations

import threading

from ..errors import StoreUnavailableError
from ..settings import Settings
from .store import Store


class LazyStore:
    """A store that is made and opened when it is first needed, and opened again after a fault.

    The threads of a process share one, and with it the connections to the database.

    Parameters:
      settings: The settings.
      users: How many threads use it; the last that closes it closes the connections.
    """

    def __init__(self, settings: Settings, users: int = 1) -> None:
        self._settings = settings
        self._store: Store | None = None
        self._is_open = False
        self._users = users
        self._lock = threading.Lock()

    def opened(self) -> Store:
        """Returns: The store, open. Raises: StoreError, NotInstalledError."""
        with self._lock:
            if self._store is None:
                self._store = Store(self._settings)
            if not self._is_open:
                try:
                    self._store.open()
                except OSError as error:  # As when the process has no descriptor left.
                    raise StoreUnavailableError(f"The store cannot be opened: {error}") from error
                self._is_open = True
            return self._store

    def reopen(self) -> None:
        """Has it opened again before its next use: after a fault, schema and disk may not be what they were.

        Its connections are made anew as well: after a failover they may lead to a server that is read-only from now on.
        """
        with self._lock:
            self._is_open = False
            if self._store is not None:
                self._store.renew_connections()

    def close(self) -> None:
        """Ends the use by this thread, and with the last one's the connections."""
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._store is not None:
                self._store.close()
