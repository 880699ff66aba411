"""Commands that wait go on while the store is out of reach for a while."""

from __future__ import annotations

import pytest

from dramatiq_diag.cli.store import patiently
from dramatiq_diag.errors import SchemaError, StoreUnavailableError


def failing(*errors: Exception | None):
    """Returns: A function that raises the errors one after the other, and then returns "there"."""
    left = list(errors)

    def call() -> str:
        error = left.pop(0) if left else None
        if error is not None:
            raise error
        return "there"

    return call


def test_a_call_is_made_again_while_the_store_is_away(capsys):
    assert patiently(failing(StoreUnavailableError("Away."), StoreUnavailableError("Away.")), pause_s=0.0) == "there"
    assert capsys.readouterr().err == "Away. It is tried again for 60 s.\n"


def test_in_the_end_the_error_is_raised():
    with pytest.raises(StoreUnavailableError, match="Away"):
        patiently(failing(StoreUnavailableError("Away.")), patience_s=0.0)


def test_another_error_is_raised_at_once():
    with pytest.raises(SchemaError):
        patiently(failing(SchemaError()), pause_s=0.0)
