"""Reaches a bucket of S3, Google Cloud Storage or Azure by obstore, and translates its errors."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ...errors import NotInstalledError, StoreUnavailableError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

#: The longest text of an error of the store, in characters.
_MAX_ERROR_LENGTH = 300

#: The process that used obstore first, if any. Its threads are those of the whole process, whatever the client.
_used_by: int | None = None


class ObjectClient:
    """A client of obstore for one bucket, made when it is first used.

    Credentials, region and endpoint come from the variables that the clouds' own tools read. A request fails soon, and
    is tried once more at most: a run that could not be published waits in the spool.

    Parameters:
      url: `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.
      timeout_s: The longest that a connection, or a pause in an answer, may take.
      request_timeout_s: The longest that one request may take.

    Raises:
      NotInstalledError: When obstore is missing.

    Note:
      obstore's threads do not survive a fork, and a call in the child would hang for ever. Such a call is refused.
    """

    def __init__(self, url: str, *, timeout_s: float, request_timeout_s: float) -> None:
        if find_spec("obstore") is None:
            raise NotInstalledError(f"{url} needs obstore: pip install 'dramatiq_diag[object-store]'")
        self._url = url
        self._timeout_s = timeout_s
        self._request_timeout_s = request_timeout_s
        self._lock = threading.Lock()
        self._made: Any = None

    def reading(self) -> AbstractContextManager[Any]:
        """Yields obstore's client. Its errors become StoreUnavailableError, but for FileNotFoundError."""
        return self._translated("read")

    def writing(self, *, missing_is_fault: bool = False) -> AbstractContextManager[Any]:
        """As `reading`.

        Parameters:
          missing_is_fault: Whether FileNotFoundError is translated, too: it then means that there is no such bucket.
        """
        return self._translated("written", missing_is_fault=missing_is_fault)

    @contextmanager
    def _translated(self, use: str, *, missing_is_fault: bool = False) -> Iterator[Any]:
        from obstore.exceptions import BaseError

        try:
            yield self._used_client()
        except FileNotFoundError as error:
            if missing_is_fault:
                raise StoreUnavailableError(f"There is no such bucket: {self._url} cannot be {use}.") from error
            raise
        except (BaseError, OSError, ValueError) as error:
            raise StoreUnavailableError(f"{self._url} cannot be {use}: {_shortened(error)}") from error

    def _used_client(self) -> Any:
        global _used_by
        if _used_by not in (None, os.getpid()):
            raise StoreUnavailableError(
                f"{self._url} cannot be used in process {os.getpid()}: it was forked from process {_used_by}, which "
                "had used an object store before. Fork first, or start the process anew (spawn)."
            )
        with self._lock:
            _used_by = os.getpid()
            if self._made is None:
                self._made = self._make()
            return self._made

    def _make(self) -> Any:
        from obstore.store import AzureStore, GCSStore, S3Store

        client_options: ClientConfig = {
            "allow_http": True,  # Without an endpoint of its own each store is asked over HTTPS.
            "connect_timeout": timedelta(seconds=self._timeout_s),
            "read_timeout": timedelta(seconds=self._timeout_s),
            "timeout": timedelta(seconds=self._request_timeout_s),
        }
        retry_config: RetryConfig = {
            "max_retries": 1,
            "retry_timeout": timedelta(seconds=self._request_timeout_s),
            "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=1), "base": 2},
        }
        if self._url.startswith("s3:"):
            return S3Store.from_url(
                self._url, client_options=client_options, retry_config=retry_config, checksum_algorithm="SHA256"
            )
        kind = GCSStore if self._url.startswith("gs:") else AzureStore
        return kind.from_url(self._url, client_options=client_options, retry_config=retry_config)


def _shortened(error: Exception) -> str:
    """Returns: The first line of an error, without the queries of URLs: they may contain a signature."""
    return re.sub(r"\?[^\s\"')]*", "", str(error).partition("\n")[0])[:_MAX_ERROR_LENGTH]
