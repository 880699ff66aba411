"""The table of the collectors, which is read before their classes, says the same as they do."""

from __future__ import annotations

import sys
from itertools import combinations

import pytest

from dramatiq_diag.collectors.names import BUILTIN
from dramatiq_diag.collectors.registry import collector_class
from dramatiq_diag.errors import UnavailableError


@pytest.mark.parametrize("name", BUILTIN)
def test_the_table_agrees_with_the_class(settings, monkeypatch, name):
    builtin, found = BUILTIN[name], collector_class(name)
    given = settings()

    assert found.name == name
    assert builtin.options == tuple(found.options_class.model_fields)
    for package in filter(None, (other.package for other in BUILTIN.values())):
        monkeypatch.setitem(sys.modules, package, None)
    if builtin.package is None:
        assert found(given).name == name
    else:
        with pytest.raises(UnavailableError, match=f"^{builtin.package} is not installed"):
            found(given)


def test_collectors_have_an_artifact_of_the_same_name_only_where_one_includes_the_other():
    for one, other in combinations(BUILTIN, 2):
        has_same = collector_class(one).artifact_name == collector_class(other).artifact_name
        assert has_same == (BUILTIN[one].includes == other or BUILTIN[other].includes == one)
