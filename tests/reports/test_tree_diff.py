"""Two call trees side by side."""

from __future__ import annotations

import itertools

import pytest

from dramatiq_diag.reports.calltree import Node, tree_of
from dramatiq_diag.reports.charts import Box, config, flame_chart
from dramatiq_diag.reports.tree_diff import MAX_BOXES, MIN_WIDTH, compare_trees, difference_boxes


def tree(*stacks: tuple[str, float]) -> Node:
    """A tree out of `outer inner` and what it took."""
    return tree_of((([(name, "/srv/jobs.py", 1) for name in names.split()], value) for names, value in stacks), "ms")[
        "tree"
    ]


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
    moved = tree_of([([("root", "/srv/jobs.py", 90), ("parse", "/srv/jobs.py", 99)], 5.0)], "ms")["tree"]

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
