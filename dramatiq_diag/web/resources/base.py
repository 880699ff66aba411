"""The base of the resources, and the parts that several of them share."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import falcon

from ..backend import Backend


class Resource:
    """Answers the requests for one address. HEAD is answered like GET."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if hasattr(cls, "on_get"):
            cls.on_head = cls.on_get  # type: ignore[attr-defined]

    def _check_form(self, form: Mapping[str, list[str]], subject: str) -> None:
        """Raises: falcon.HTTPForbidden unless the form has the token that a page of this server gave it."""
        reason = self._backend.signer.reason_against_action(subject, first_value(form, "token"))
        if reason is not None:
            raise falcon.HTTPForbidden(description=reason)


def first_value(form: Mapping[str, list[str]], name: str) -> str:
    """Returns: The first value of a field of a form; an empty text if there is none."""
    return form.get(name, [""])[0]


def id_in_path(text: str, description: str) -> uuid.UUID:
    """Returns: The id in a path. Raises: falcon.HTTPNotFound with the description for any other text."""
    try:
        return uuid.UUID(text)
    except ValueError as error:
        raise falcon.HTTPNotFound(description=description) from error


@contextmanager
def known_cursor() -> Iterator[None]:
    """Turns the ValueError for a cursor of another list or order into falcon.HTTPBadRequest."""
    try:
        yield
    except ValueError as error:
        raise falcon.HTTPBadRequest(
            description="`cursor` is not one that this list, in this order, gave as `next`."
        ) from error
