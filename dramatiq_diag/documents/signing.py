"""Signs download URLs, and forms of pages: they expire, and cannot be forged."""

from __future__ import annotations

import hashlib
import hmac
import math
import os
import secrets
import stat
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, urlencode

from ..errors import StoreUnavailableError
from ..runtime.private_files import make_directory, make_file, open_to_others
from ..settings import Settings

#: The file in the data dir that has the key.
KEY_FILE = "secret.key"
_MAX_KEY_BYTES = 4096
#: Seconds for which a page may send its forms. The setting of the lifetime is about downloads, which need no login.
_FORM_TTL_S = 86400.0


class Signer:
    """Signs the paths of artifacts, and the forms of pages.

    Parameters:
      settings: Its `secret_key` signs, or a key that is made once and kept in the data dir with mode 0600.
      clock: Gives the seconds since the epoch.

    Raises:
      StoreUnavailableError: When the key can be neither read nor made.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        given = settings.secret_key
        self._key = given.get_secret_value().encode() if given is not None else _kept_key(settings.data_dir)
        self._ttl_s = settings.url_ttl
        self._clock = clock

    def url_path(self, artifact_id: str, filename: str) -> str:
        """Returns: The path and query of a download that is valid for the URL TTL from now."""
        expires = self._expires(self._ttl_s)
        query = urlencode({"expires": expires, "signature": self._sign("artifact", artifact_id, filename, expires)})
        return f"/artifacts/{quote(artifact_id, safe='')}/{quote(filename, safe='')}?{query}"

    def reason_against(self, artifact_id: str, filename: str, expires: str | None, signature: str | None) -> str | None:
        """Returns: The reason why a download is refused, or None when its signature is good and has not expired."""
        if expires is None or signature is None:
            return "A download needs the `expires` and `signature` that `profile_artifacts` gave."
        if not self._is_signed(signature, "artifact", artifact_id, filename, expires):
            return "The signature of this URL is not valid."
        return "This URL has expired; ask `profile_artifacts` for a new one." if self._has_passed(expires) else None

    def action_token(self, subject: str) -> str:
        """Returns: The token of a form about a run or an actor, so that no form of another site is accepted."""
        expires = self._expires(_FORM_TTL_S)
        return f"{expires}.{self._sign('action', subject, expires)}"

    def reason_against_action(self, subject: str, token: str) -> str | None:
        """Returns: The reason why a form is refused, or None."""
        expires, _, signature = token.partition(".")
        if not self._is_signed(signature, "action", subject, expires):
            return "The form is not one that a page of this server showed."
        return "The page was open for too long; load it again." if self._has_passed(expires) else None

    def _expires(self, ttl_s: float) -> str:
        return str(math.ceil(self._clock() + ttl_s))  # Below a second it would else have passed already.

    def _has_passed(self, expires: str) -> bool:
        return int(expires) < self._clock()

    def _sign(self, *parts: str) -> str:
        message = "\0".join(parts).encode("utf-8", "surrogatepass")
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()

    def _is_signed(self, signature: str, *parts: str) -> bool:
        return hmac.compare_digest(self._sign(*parts).encode(), signature.encode("utf-8", "surrogatepass"))


def _kept_key(data_dir: Path) -> bytes:
    path = data_dir / KEY_FILE
    try:
        if not path.exists():
            make_directory(data_dir)
            make_file(path, f"{secrets.token_hex(32)}\n".encode())
        key = _read_private(path)
    except OSError as error:
        raise StoreUnavailableError(
            f"The key that signs URLs cannot be kept at {path}: {error.strerror}; "
            f"make the directory writable or set {Settings.variable('secret_key')}."
        ) from error
    if len(key) < 16:
        raise StoreUnavailableError(f"The key at {path} is too short; remove the file and a new one is made.")
    return key


def _read_private(path: Path) -> bytes:
    """Returns: The content of a file that only this user can reach. Raises: StoreUnavailableError for others."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        fault = open_to_others(status) if stat.S_ISREG(status.st_mode) else "it is not a file"
        if fault is not None:
            raise StoreUnavailableError(
                f"The key at {path} is not trusted, because {fault}: who knows it can sign URLs. Remove it, and "
                f"a new one is made; or set {Settings.variable('secret_key')}."
            )
        return os.read(descriptor, _MAX_KEY_BYTES).strip()
    finally:
        os.close(descriptor)
