"""How much of two runs is loaded to compare them."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from support import eventually
from support.web import Site, memory_artifact, profile_artifact, session_of


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
