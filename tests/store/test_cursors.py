"""Pages and their cursors, over both databases."""

from __future__ import annotations

import base64
import itertools
import random
import uuid
from datetime import timedelta

import pytest

from dramatiq_diag.store.cursors import FIGURES
from dramatiq_diag.store.runs import (
    RunFilter,
    Sort,
    list_runs,
)
from support.records import NOW, bundle, run_record


def test_pages_have_every_run_once_newest_first(store):
    moments = [NOW + timedelta(microseconds=random.Random(number).randrange(20)) for number in range(57)]
    store.publish([bundle(run_record(started_at=moment)) for moment in moments])

    seen, cursor, pages = [], None, 0
    while pages == 0 or cursor is not None:
        with store.session() as session:
            runs, cursor = list_runs(session, RunFilter(), 10, cursor)
        assert len(runs) <= 10
        seen += [(run.started_at, run.run_id) for run in runs]
        pages += 1

    assert pages == 6
    assert len(set(seen)) == 57
    assert [moment for moment, _ in seen] == sorted(moments, reverse=True)


def test_a_run_that_comes_in_between_does_not_shift_the_pages(store):
    store.publish([bundle(run_record(started_at=NOW + timedelta(seconds=number))) for number in range(4)])
    with store.session() as session:
        first, cursor = list_runs(session, RunFilter(), 2)

    store.publish([bundle(run_record(started_at=NOW + timedelta(days=1)))])
    with store.session() as session:
        second, end = list_runs(session, RunFilter(), 2, cursor)

    assert len({run.run_id for run in first + second}) == 4
    assert end is None


def test_a_full_last_page_has_no_next(store):
    store.publish([bundle() for _ in range(3)])

    with store.session() as session:
        assert list_runs(session, RunFilter(), 3)[1] is None
        assert list_runs(session, RunFilter(), 2)[1] is not None


#: Those by a figure, with its name.
FIGURE_ORDERS = [(sort, figure.key) for sort, figure in FIGURES.items() if sort is not Sort.NEWEST]


@pytest.mark.parametrize(("sort", "figure"), FIGURE_ORDERS)
def test_pages_have_every_run_with_a_figure_once_largest_first(store, sort, figure):
    chance = random.Random(3)
    kinds = {"ms": (0.1, 0.2, 1e-300, 1e300, 3.0, 0.0), "bytes": (0, 1, 2**53, 2**53 + 1, 2**62)}
    runs = [run_record(**{figure: chance.choice(kinds[figure.rpartition("_")[2]])}) for _ in range(57)]
    nothing = [run_record(**{figure: None}) for _ in range(3)]
    store.publish([bundle(run) for run in runs + nothing])

    seen, cursor = [], None
    while len(seen) == 0 or cursor is not None:
        with store.session() as session:
            page, cursor = list_runs(session, RunFilter(), 10, cursor, sort)
        seen += [(getattr(run, figure), run.run_id) for run in page]

    assert len(set(seen)) == len(seen) == 57
    assert [value for value, _ in seen] == sorted((getattr(run, figure) for run in runs), reverse=True)


def test_orders_and_filters_go_together(store):
    store.publish(
        [
            bundle(run_record(actor_name="work", duration_ms=2.0)),
            bundle(run_record(actor_name="work", duration_ms=3.0)),
            bundle(run_record(actor_name="rest", duration_ms=9.0)),
        ]
    )

    with store.session() as session:
        runs, _ = list_runs(session, RunFilter(actor_name="work", min_duration_ms=1), 10, None, Sort.SLOWEST)

    assert [run.duration_ms for run in runs] == [3.0, 2.0]


def test_a_cursor_goes_on_in_the_order_that_it_came_from_alone(store):
    figures = [name for _, name in FIGURE_ORDERS]
    store.publish([bundle(run_record(**dict.fromkeys(figures, number))) for number in range(4)])

    with store.session() as session:
        cursors = {sort: list_runs(session, RunFilter(), 2, None, sort)[1] for sort in Sort}
        for given, sort in itertools.product(Sort, Sort):
            if given is sort:
                assert len(list_runs(session, RunFilter(), 2, cursors[given], sort)[0]) == 2
            else:
                with pytest.raises(ValueError, match="cursor"):
                    list_runs(session, RunFilter(), 2, cursors[given], sort)


#: A parameter that each process draws anew would be another test in each.
A_RUN_ID = "7c0a4c1e-53bb-4d0f-9f5e-2f6a8d1b7e90"


def encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode("utf-8", "surrogatepass")).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "%%%",
        "é",
        "\0",
        "A" * 100_000,
        encoded("now then"),
        encoded(f"2026-01-01T00:00:00 {A_RUN_ID}"),
        encoded(f"newest 2026-01-01T00:00:00 {A_RUN_ID}"),
        encoded("newest 2026-01-01T00:00:00+00:00 no-uuid"),
        encoded(f"newest 2026-01-01T00:00:00+00:00 {A_RUN_ID} more"),
        encoded(f"newest 2026-01-01T00:00:00+00:00 {A_RUN_ID.upper()}"),
        encoded(f"newest 2026-01-01T01:00:00+01:00 {A_RUN_ID}"),
        encoded(f"newest 20260101T000000Z {A_RUN_ID}"),
        encoded(f"newest {'9' * 5000}-01-01T00:00:00+00:00 {A_RUN_ID}"),
        encoded(f"newest 9999-12-31T23:59:59-14:00 {A_RUN_ID}"),
        encoded(f"oldest 2026-01-01T00:00:00+00:00 {A_RUN_ID}"),
        encoded("2026-01-01T00:00:00+00:00 no-uuid"),
        encoded(f"2026-01-01T00:00:00+00:00 {A_RUN_ID} more"),
        encoded(f"{'9' * 5000}-01-01T00:00:00+00:00 {A_RUN_ID}"),
        encoded(f"9999-12-31T23:59:59-14:00 {A_RUN_ID}"),
        encoded(f"0001-01-01T00:00:00+14:00 {A_RUN_ID}"),
    ],
)
def test_a_cursor_that_is_not_ours_is_refused(store, cursor):
    store.publish([bundle()])

    with store.session() as session, pytest.raises(ValueError, match="cursor"):
        list_runs(session, RunFilter(), 10, cursor)


@pytest.mark.parametrize(
    ("sort", "figure"),
    [
        *((Sort.SLOWEST, text) for text in ("nan", "inf", "-inf", "1e999", "1", "1_0.0", "0x1p3", "\u0661.0", "", "x")),
        *((Sort.CPU, text) for text in ("nan", "inf", "1", "x")),
        *((Sort.TOUCHED, text) for text in ("9" * 30, "1.5", "nan")),
        *((Sort.MEMORY, text) for text in ("9" * 30, "9" * 5000, "-" + "9" * 30, "1.5", "1_0", "+1", "01", "", "nan")),
    ],
)
def test_a_cursor_with_a_figure_that_is_not_ours_is_refused(store, sort, figure):
    store.publish([bundle()])

    with store.session() as session, pytest.raises(ValueError, match="cursor"):
        list_runs(session, RunFilter(), 10, encoded(f"{sort} {figure} {uuid.uuid4()}"), sort)
