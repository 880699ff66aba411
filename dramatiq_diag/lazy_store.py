"""The store as a background thread works with it."""

from __future__ import annotations

from .errors import StoreUnavailableError
from .settings import Settings
from .store import Store


class LazyStore:
    """A store that is made and opened when it is first needed, and opened again after a fault.

    Parameters:
      settings: The settings.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store: Store | None = None
        self._is_open = False

    def opened(self) -> Store:
        """Returns: The store, open. Raises: StoreError, NotInstalledError."""
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

        The connections are closed as well: after a failover they may lead to a server that is read-only from now on.
        """
        self._is_open = False
        self.close()

    def close(self) -> None:
        """Closes the connections, if there are any."""
        if self._store is not None:
            self._store.close()
