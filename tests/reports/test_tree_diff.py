"""Two call trees side by side."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest

from dramatiq_diag.reports.calltree import Node, tree_of
from dramatiq_diag.reports.charts import Box, config, flame_chart
from dramatiq_diag.reports.tree_diff import MAX_BOXES, MIN_WIDTH, compare_trees, difference_boxes
from support.profiles import profile_of


def tree(*stacks: tuple[str, float]) -> Node:
    """A tree out of `outer inner` and what it took."""
    return tree_of(profile_of(*((names.split(), value) for names, value in stacks)))["tree"]


BEFORE = tree(("root", 10), ("root parse", 100), ("root parse split", 50), ("root gone", 40))
AFTER = tree(("root", 10), ("root parse", 80), ("root parse split", 250), ("root new", 30))


def box_of(boxes: list[Box], function: str) -> Box:
    [box] = [box for box in boxes if box["function"] == function]
    return box


def test_what_got_more_is_on_top_and_what_got_less_at_the_end():
    changes = compare_trees(BEFORE, AFTER)

    assert [(change["function"], change["difference"]) for change in changes] == [
        ("split", 200),
        ("new", 30),
        ("root", 0),
        ("parse", -20),
        ("gone", -40),
    ]
    parse = changes[3]
    assert (parse["a_total"], parse["b_total"], parse["total_difference"]) == (150, 330, 180)
    assert (parse["a_self"], parse["b_self"]) == (100, 80)


def test_the_same_run_has_no_difference():
    assert {change["difference"] for change in compare_trees(BEFORE, BEFORE)} == {0}
    assert {box["difference"] for box in difference_boxes(BEFORE, BEFORE)} == {0}


def test_a_box_is_as_wide_as_the_larger_value_and_what_vanished_has_one():
    boxes = difference_boxes(BEFORE, AFTER)

    width = 330 + 40 + 30
    root, parse, gone, new = (box_of(boxes, name) for name in ("root", "parse", "gone", "new"))
    assert (root["x0"], root["x1"], root["depth"]) == (0, 1, 0)
    assert parse["x1"] - parse["x0"] == pytest.approx(330 / width)
    assert gone["x1"] - gone["x0"] == pytest.approx(40 / width)
    assert (gone["a"], gone["b"], gone["difference"]) == (40, 0, -40)
    assert (new["a"], new["b"], new["difference"]) == (0, 30, 30)


def test_boxes_stand_inside_the_one_that_calls_them_and_beside_each_other():
    boxes = difference_boxes(BEFORE, AFTER)

    assert all(0 <= box["x0"] < box["x1"] <= 1 + 1e-9 for box in boxes)
    level = sorted((box["x0"], box["x1"]) for box in boxes if box["depth"] == 1)
    assert all(left[1] <= right[0] + 1e-9 for left, right in itertools.pairwise(level))
    split, parse = box_of(boxes, "split"), box_of(boxes, "parse")
    assert parse["x0"] <= split["x0"] < split["x1"] <= parse["x1"]


def test_a_program_whose_lines_moved_is_compared_by_its_functions():
    moved = tree_of(profile_of((["root", "parse"], 5.0), line=90))["tree"]

    boxes = difference_boxes(tree(("root parse", 5)), moved)

    assert [(box["function"], box["difference"]) for box in boxes] == [("root", 0), ("parse", 0)]


def test_boxes_are_few_and_wide_enough_to_be_seen():
    many = [(" ".join(f"f{number}_{depth}" for depth in range(100)), 1.0) for number in range(60)]

    boxes = difference_boxes(tree(*many), tree(("root", 1)))

    assert 1000 < len(boxes) <= MAX_BOXES
    assert min(box["x1"] - box["x0"] for box in boxes) >= MIN_WIDTH


def test_recursion_deeper_than_python_goes_is_compared():
    deep = tree((" ".join(["fib"] * 5000), 5))

    assert len(difference_boxes(deep, tree(("fib", 3)))) == 200
    assert compare_trees(deep, tree(("fib", 3)))[0]["difference"] == -2


@pytest.mark.parametrize("first", [tree(), tree(("f", 0))])
def test_nothing_is_compared_with_nothing(first):
    assert difference_boxes(first, tree()) == []
    assert all(change["difference"] == 0 for change in compare_trees(first, tree()))


@pytest.mark.parametrize("unit", ["ms", "bytes"])
def test_the_chart_of_a_difference_is_drawn(unit):
    vl_convert = pytest.importorskip("vl_convert")
    hostile = "x'+alert(1)+'</script>\"`${y}"

    spec = flame_chart(difference_boxes(tree((f"root {hostile}", 9)), AFTER), unit, width=600)

    drawn = vl_convert.vegalite_to_svg(spec, config=config(dark=True), allowed_base_urls=[])
    assert "parse" in drawn
    without_data = {key: value for key, value in spec.items() if key != "datasets"}
    assert "alert" not in repr(without_data)


def test_the_legend_of_a_difference_has_milliseconds_and_all_of_its_labels():
    vl_convert = pytest.importorskip("vl_convert")

    spec = flame_chart(difference_boxes(tree(("root", 600.0)), tree(("root", 1000.0))), "ms", width=600)
    longer = flame_chart(difference_boxes(tree(("root", 10.0)), tree(("root", 2900.0))), "ms", width=600)

    drawn = vl_convert.vegalite_to_svg(spec, config=config(dark=True), allowed_base_urls=[])
    [left] = [left for text, left in _texts(ElementTree.fromstring(drawn)) if text == "−400"]  # noqa: RUF001 - as drawn.
    assert left > 12  # Half of the label is to the left of this.
    drawn = vl_convert.vegalite_to_svg(longer, config=config(dark=True), allowed_base_urls=[])
    assert {"0", "2,000"} <= {text for text, _ in _texts(ElementTree.fromstring(drawn))}


def _texts(element: ElementTree.Element, left: float = 0.0) -> Iterator[tuple[str, float]]:
    """Yields each text of a drawing with its place, in pixels from the left end."""
    moved = re.match(r"translate\(([-\d.]+)", element.get("transform", ""))
    left += float(moved[1]) if moved else 0.0
    if element.tag.endswith("}text"):
        yield element.text or "", left
    for child in element:
        yield from _texts(child, left)
