"""Which part grows a process: beside parts that sleep, and beside those that fill buffers and free them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Mapping
from random import Random

import pytest

from dramatiq_diag.runtime.growth_moments import Growth, Moment
from dramatiq_diag.runtime.memory_growth import MemoryGrowth
from dramatiq_diag.text import MIB

STEP_S = 0.1


class Process:
    """A process that a test lets grow. All sizes are in MiB."""

    def __init__(self, seed: int = 1) -> None:
        self.chance = Random(seed)
        self.growth = MemoryGrowth()
        self.touched: dict[Hashable, float] = {}
        self.kept = 100.0
        self.held: dict[str, float] = {}
        self.now_s = 0.0

    def grow(self, part: Hashable, size: float, kept: float = 1.0) -> None:
        """A part touches memory, and keeps a share of it."""
        self.touched[part] = self.touched.get(part, 0.0) + size
        self.kept += size * kept

    def churn(self, part: str, largest: float = 40.0) -> None:
        """A part frees its buffer, or fills another one."""
        if self.held.pop(part, None) is None:
            self.held[part] = self.chance.uniform(2.0, largest)
            self.touched[part] = self.touched.get(part, 0.0) + self.held[part]
        else:
            self.touched.setdefault(part, 0.0)

    def look(self) -> None:
        self.now_s += STEP_S
        touched = {part: round(size * MIB) for part, size in self.touched.items()}
        self.growth.add(Moment(self.now_s, round((self.kept + sum(self.held.values())) * MIB), touched))

    def live(self, looks: int, *steps: Callable[[], object]) -> Growth | None:
        """Lets time pass. Returns: The growth at its end."""
        for _ in range(looks):
            for step in steps:
                step()
            self.look()
        return self.growth.find()

    def sleepers(self) -> None:
        for number in range(7):
            self.grow(f"sleeper {number}", 0.004)

    def churners(self) -> None:
        for number in range(7):
            if self.chance.random() < 0.6:
                self.churn(f"churner {number}")


def growers(growth: Growth | None) -> set[Hashable]:
    return set() if growth is None else set(growth.growers)


@pytest.mark.parametrize(
    ("mib_per_look", "looks"), [(0.5, 40), (2.0, 5), (2.0, 40), (200.0, 2), (200.0, 3), (200.0, 5)]
)
def test_beside_sleepers_the_eater_is_found_soon(mib_per_look, looks):
    process = Process()

    growth = process.live(looks, process.sleepers, lambda: process.grow("eater", mib_per_look))

    assert growers(growth) == {"eater"}
    assert growth.growers["eater"] / growth.seconds == pytest.approx(mib_per_look * MIB / STEP_S, rel=0.05)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("mib_per_look", "looks"), [(3.0, 150), (30.0, 20)])
def test_beside_tasks_that_free_what_they_fill_the_eater_is_found(seed, mib_per_look, looks):
    process = Process(seed)
    process.live(20, process.churners)

    growth = process.live(looks, process.churners, lambda: process.grow("eater", mib_per_look))

    assert growers(growth) == {"eater"}


@pytest.mark.parametrize("before", [50, 300])
@pytest.mark.parametrize("neighbours", ["sleepers", "churners"])
def test_the_growth_is_that_since_the_eater_began(neighbours: str, before: int) -> None:
    """Over all the time that the process has lived an eater that has just begun would be slow."""
    process = Process()
    process.live(before, getattr(process, neighbours))

    growth = process.live(10, getattr(process, neighbours), lambda: process.grow("eater", 40.0))

    assert growers(growth) == {"eater"}
    assert growth is not None
    assert growth.growers["eater"] / growth.seconds == pytest.approx(400 * MIB, rel=0.1)
    assert growth.seconds < 1.5


def test_the_rate_of_a_task_that_rested_is_that_of_its_end() -> None:
    process = Process()
    process.live(10, process.sleepers)
    process.live(10, process.sleepers, lambda: process.grow("eater", 18.0))
    process.live(250, process.sleepers)

    growth = process.live(15, process.sleepers, lambda: process.grow("eater", 6.0))

    assert growers(growth) == {"eater"}
    assert growth is not None
    assert growth.growers["eater"] / growth.seconds == pytest.approx(60 * MIB, rel=0.3)


def test_beside_tasks_that_free_what_they_fill_one_look_at_a_fast_eater_mostly_suffices() -> None:
    found = []
    for seed in range(100):
        process = Process(seed)
        process.live(40, process.churners)
        found.append(growers(process.live(1, process.churners, lambda process=process: process.grow("eater", 150.0))))

    assert found.count({"eater"}) >= 90
    assert found.count(set()) == 100 - found.count({"eater"})


@pytest.mark.parametrize("seed", [1, 2, 4, 5, 7, 12])
def test_tasks_that_freed_what_they_filled_before_are_hardly_taken_for_the_eater(seed):
    """Within these 0.8 s one of them touches as steadily as the process grows."""
    process = Process(seed)
    process.live(100, process.churners)

    growth = process.live(8, process.churners, lambda: process.grow("eater", 20.0))

    assert growers(growth) == {"eater"}


def test_a_task_that_freed_what_it_filled_before_may_grow_the_process_now():
    process = Process()
    process.live(100, process.sleepers, lambda: process.churn("importer"))

    growth = process.live(20, process.sleepers, lambda: process.grow("importer", 20.0))

    assert growers(growth) == {"importer"}


@pytest.mark.parametrize("seed", range(5))
def test_tasks_that_free_what_they_fill_do_not_grow_the_process(seed):
    process = Process(seed)

    for looks in (2, 10, 20, 100):
        assert growers(process.live(looks, process.churners)) == set()


def test_a_process_that_rests_does_not_grow():
    process = Process()

    assert process.live(50, process.sleepers) is None


@pytest.mark.parametrize("mib_per_look", [1.0, 4.0])
def test_a_task_that_fills_as_much_as_it_always_does_is_not_taken_for_the_eater(mib_per_look: float) -> None:
    """Each time it comes to a new height with the process, which another task grows."""
    process, looks = Process(), itertools.count()

    def pulse() -> None:
        now = next(looks) % 23
        if now == 0:
            process.touched["pulse"] = process.touched.get("pulse", 0.0) + process.chance.uniform(57.0, 63.0)
            process.held["pulse"] = 60.0
        elif now == 5:
            del process.held["pulse"]

    process.live(280, process.sleepers, pulse)

    found = [process.live(1, process.sleepers, pulse, lambda: process.grow("eater", mib_per_look)) for _ in range(120)]
    assert {part for growth in found for part in growers(growth)} == {"eater"}


def test_two_tasks_grow_it_together():
    process = Process()

    growth = process.live(40, process.sleepers, lambda: process.grow("one", 4.0), lambda: process.grow("two", 4.5))

    assert growers(growth) == {"one", "two"}


def test_a_task_that_has_ended_to_grow_is_not_it():
    process = Process()
    process.live(60, process.sleepers, lambda: process.grow("early", 4.0))

    growth = process.live(25, process.sleepers, lambda: process.grow("late", 4.0))

    assert growers(growth) == {"late"}


def test_one_that_keeps_a_part_of_what_it_touches_is_found_if_no_other_can_be_it():
    process = Process()

    growth = process.live(40, process.sleepers, lambda: process.grow("parser", 20.0, kept=0.1))

    assert growers(growth) == {"parser"}
    assert growth.growers["parser"] == pytest.approx(growth.grown_bytes)


def test_where_two_can_be_it_nobody_is_accused():
    process = Process()

    growth = process.live(
        40,
        process.sleepers,
        lambda: process.grow("one", 20.0, kept=0.1),
        lambda: process.grow("two", 20.0, kept=0.0),
    )

    assert growth is not None
    assert growers(growth) == set()


def test_huge_pages_hide_what_is_touched_and_not_who_touched_anything():
    process = Process()

    def eat() -> None:
        process.grow("eater", 40 / 512)
        process.kept += 40

    growth = process.live(40, lambda: process.grow("sleeper", 0.0), eat)

    assert growers(growth) == {"eater"}


def test_a_part_that_came_in_between_counts_from_then_on():
    process = Process()
    process.live(20, process.sleepers)

    growth = process.live(20, process.sleepers, lambda: process.grow("new", 10.0))

    assert growers(growth) == {"new"}


def test_nothing_is_known_before_there_are_two_moments():
    growth = MemoryGrowth()
    assert growth.find() is None
    nothing: Mapping[Hashable, int] = {}
    growth.add(Moment(1.0, 5, nothing))
    assert growth.find() is None
    growth.clear()
    assert growth.find() is None


#: The last seconds of a worker on a quiet machine, in MiB: seven tasks fill buffers and free them from its start. One
#: that begins after 2 s allocates until the kernel kills it.
RECORDED = """
        s        RSS  churner-1  churner-2      eater  churner-3  churner-4  churner-5  churner-6  churner-7      other
      0.0         65          0          0          -          -          -          0          0          0          0
     0.26        168         40         30          -          -          -         28         58         27          0
     0.45        287         59         58          -         51         62         28         89         27          0
     0.55        221         59         58          -         51         62         28         89         27          7
     0.65        264         60         58          -         51        101         28         89         27         10
     0.75        233         60         58          -         51        101         28         89         35         11
     0.85        245         60         58          -         57        107         28         89         35         12
     0.99        284         60         95          -         89        113         28         89         35         12
      1.0        284         60         95          -         89        113         28         89         35         12
      1.1        254         60         95          -         89        115         29         89         35         12
     1.24        269         60         95          -         89        126         31         89         74         13
      1.4        350         61        128          -         96        126         31         89        113         13
     1.65        278         61        128          -         96        126         31         89        113         14
      1.7        311         61        128          -        129        126         31         89        113         14
     1.77        344         61        161          -        129        126         31         89        113         14
      1.9        279         61        161          -        129        126         31         89        113         14
     2.01        315         61        194          -        129        126         31         90        115         14
     2.02        315         61        194          -        129        126         31         90        115         14
     2.15        281         61        194          -        129        126         31         90        115         14
      2.2        321         61        233          -        129        126         31         90        116         14
      2.8        608         95        301        282        129        170         98        129        116         14
"""


#: The same with a slower one. The sizes of the RSS are close to the one before, so that they count as eight.
RECORDED_LATER = """
        s        RSS  churner-1      other  churner-2  churner-3  churner-4  churner-5  churner-6  churner-7      eater
     0.00         65          0          0          -          -          -          -          -          -          -
     0.15         96         34          0         10         21          -          -          -          -          -
     0.19        138         34          0         10         21         24         19         38         10          -
     0.26        141         43          0         10         46         24         50         38         10          -
     0.47        213         81          0         32         61         56         50         84         43          -
     0.57        181         90          2         32         75         61         54         84         47          -
     0.63        253         90          2         67         75         61         90         84         47          -
     0.72        233         90          4         67         75         78         90        118         47          -
     0.76        267         90          5         67         75        112         90        118         47          -
     0.85        217         90          6         67         75        112        106        118         86          -
     0.95        265         98          8         71         75        112        106        118        120          -
     1.02        232         98         11         71         75        112        106        118        120          -
     1.11        264         98         11         71        106        150        106        118        120          -
     1.16        295         98         11         71        106        181        106        118        120          -
     1.32        322        131         13         71        106        190        106        163        120          -
     1.45        300        165         13         71        106        190        106        163        134          -
     1.57        307        165         14         71        143        190        111        163        134          -
     1.70        271        198         14         71        143        190        111        163        134          -
     1.76        309        198         14         71        181        190        111        163        134          -
     1.95        382        201         14         71        220        224        111        163        170          -
     2.06        274        201         15        104        220        224        111        163        170          -
     3.16        411        269        110        136        256        366        184        198        207          -
     3.18        418        269        117        136        256        366        184        198        207          -
     3.44        482        270        117        137        256        366        184        235        207        161
     3.90        623        270        117        141        256        405        185        273        246        257
     4.04        613        270        117        141        256        405        221        274        246        285
     4.09        656        270        117        180        256        405        221        274        246        289
     4.48        653        270        117        213        256        480        255        274        249        358
"""


@pytest.mark.parametrize(("recorded", "named"), [(RECORDED, {"eater"}), (RECORDED_LATER, set())])
def test_parts_that_fill_and_free_are_not_named_beside_one_that_has_just_begun_to_grow(recorded, named):
    """For a few seconds they touch as steadily as the process has grown since its start."""
    names, *rows = [line.split() for line in recorded.strip().splitlines()]
    growth = MemoryGrowth()
    for row in rows:
        touched = {part: int(size) * MIB for part, size in zip(names[2:], row[2:], strict=True) if size != "-"}
        growth.add(Moment(float(row[0]), int(row[1]) * MIB, touched, is_partial=row is rows[0]))

    found = growth.find()
    assert found is not None
    assert set(found.growers) == named


def test_what_neighbours_may_have_again_is_added_to_what_grew_meanwhile():
    growth = MemoryGrowth()
    assert growth.highest_bytes(["eater"]) is None
    for at_s, rss_bytes, touched in ((0.0, 500, {}), (1.0, 560, {"eater": 20}), (2.0, 520, {"eater": 40})):
        growth.add(Moment(at_s, rss_bytes, touched))

    assert growth.highest_bytes(["eater"]) == 580
    assert growth.highest_bytes([]) == 560
