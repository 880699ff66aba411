"""How much of two runs is loaded to compare them."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

import pytest

from support import eventually
from support.pages import page_of
from support.web import Site, artifact, memory_artifact, profile_artifact, session_of


@pytest.mark.parametrize("damaged", [b"\0" * 40, b"{", b"[" * 100_000, b"\xff", b"[]", b"3"])
def test_a_damaged_account_of_the_time_costs_only_its_part(site: Site, damaged: bytes) -> None:
    account = partial(artifact, "time_accounting", filename="accounting.json", media_type="application/json")
    whole = b'{"wall_ms": 1.0, "samples": 1, "parts": [], "neighbours": []}'
    a = site.publish("a", [memory_artifact(), account(whole)])
    b = site.publish("b", [memory_artifact(), account(damaged)])

    def compared() -> object:
        answer = site.get("/compare/", params={"a": str(a), "b": str(b)})
        assert answer.status_code in (200, 202)
        return answer.json if answer.status_code == 200 else None

    found = eventually(compared, "both are rendered")

    assert "see `dramatiq-diag check`" in found["accounting"]["reason"]
    assert found["memory"]["reason"] is None
    assert page_of(site, "/tasks/b/")


@pytest.mark.parametrize("limit_bytes", [None, 600])
def test_a_tree_that_is_too_large_is_not_loaded_and_said(
    make_site: Callable[..., Site], limit_bytes: int | None
) -> None:
    site = make_site({} if limit_bytes is None else {"max_compared_bytes": limit_bytes})
    large = json.dumps(session_of(*(f"function_{number}" for number in range(20)))).encode()
    a = site.publish("a", [memory_artifact(), profile_artifact()])
    b = site.publish("b", [memory_artifact(), profile_artifact(large)])

    def compared() -> object:
        answer = site.get("/compare/", params={"a": str(a), "b": str(b)})
        return answer.json if answer.status_code == 200 else None

    time = eventually(compared, "both are rendered")["time"]

    if limit_bytes is None:
        assert (time["reason"], len(time["functions"])) == (None, 22)
    else:
        assert time["reason"].startswith("pyinstrument_profile of run B is too large to be compared: ")
        assert time["functions"] == []
