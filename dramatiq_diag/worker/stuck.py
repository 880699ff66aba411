"""Finds runs that last much longer than usual, marks their rows, and leaves their stacks in their artifacts."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from ..collectors.services import Services
from ..errors import GUARDED
from ..policy.stuck_rule import StuckRule, UsualDuration
from ..runtime.report_text import stacks_text
from ..runtime.thread_report import ThreadReports
from ..store.actor_stats import usual_duration
from ..store.store import Store
from ..store.stuck_runs import mark_stuck
from .run import Run
from .stack_log import StackLog
from .stacks import take_reports

#: Seconds between the texts of one run.
_REPEAT_S = 600.0

#: The most texts in a row that a run gets while it does not move.
_MAX_SAME = 20

#: Seconds after which the usual duration of an actor is read again.
_USUAL_S = 300.0


class _StuckRun:
    """One run that is stuck, and what was written of it."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.log = StackLog(run)
        self.reports = ThreadReports()  # Its own: it compares with the last look at the same run.
        self.is_marked = False
        self.write_at = 0.0
        "When the next text is due, by the clock of the process."
        self._place: Hashable = None
        "Where the task was at the last text."
        self._same_count = 0
        "How many texts in a row had that place."

    def write(self, limit_s: float, max_same: int) -> None:
        """Writes the stacks and waits of all threads now."""
        run = self.run
        reports = take_reports(run.services, self.reports, run.thread_id)
        place = tuple(report.frames for report in reports if report.is_task)
        self._same_count = self._same_count + 1 if place == self._place else 1
        self._place = place
        if self._same_count <= max_same:
            again = "" if self._same_count == 1 else ", where it was at the last look"
            occasion = f"{run.elapsed_s:.0f} s after the start of the task, which is stuck{again}: "
            self.log.write(stacks_text(reports, f"{occasion}it has run for more than {limit_s:.0f} s"))


class StuckRuns:
    """The diagnosed runs of a process that are stuck. All runs on the contact's thread.

    Parameters:
      runs: Thread id -> the diagnosed run on it.
      rule: Decides which run is stuck.
      max_same: The most texts in a row that a run gets while it does not move.
    """

    def __init__(
        self,
        services: Services,
        runs: Mapping[int, Run],
        rule: StuckRule,
        *,
        max_same: int = _MAX_SAME,
    ) -> None:
        self._services = services
        self._runs = runs
        self._rule = rule
        self._max_same = max_same
        self._stuck: dict[Run, _StuckRun] = {}
        self._usual: dict[str, tuple[UsualDuration | None, float]] = {}
        "Actor of a long run -> its usual duration, and when to read it again."

    def look(self) -> None:
        """Finds the runs that are stuck now, and writes their stacks where that is due. It needs no database."""
        if not self._rule.is_on:
            return
        running = tuple(self._runs.values())
        long = [run for run in running if run.ended is None and run.elapsed_s >= self._rule.least_s]
        self._usual = {run.actor_name: self._usual.get(run.actor_name, (None, 0.0)) for run in long}
        found = {run: limit_s for run in long if run.elapsed_s >= (limit_s := self._limit_s(run))}
        self._stuck = {run: self._stuck.get(run) or _StuckRun(run) for run in found}
        for run, limit_s in found.items():
            self._write(self._stuck[run], limit_s)

    def note(self, store: Store) -> None:
        """Marks the rows of the runs that are stuck, and reads what actors of long runs usually take.

        Raises:
          StoreError: When the store cannot be used; it is tried again with the next call.
        """
        unmarked = {stuck.run.run_id: stuck for stuck in self._stuck.values() if not stuck.is_marked}
        if unmarked:
            with store.session() as session:
                marked = mark_stuck(session, list(unmarked))
            for run_id in marked:
                unmarked[run_id].is_marked = True
        now = self._services.clock()
        for actor_name, (_, read_at) in self._usual.items() if self._rule.needs_usual else ():
            if now >= read_at:
                with store.session() as session:
                    usual = usual_duration(session, actor_name)
                self._usual[actor_name] = usual, now + _USUAL_S

    def _limit_s(self, run: Run) -> float:
        return self._rule.limit_s(self._usual[run.actor_name][0])

    def _write(self, stuck: _StuckRun, limit_s: float) -> None:
        now = self._services.clock()
        if now < stuck.write_at:
            return
        stuck.write_at = now + _REPEAT_S
        try:
            stuck.write(limit_s, self._max_same)
        except GUARDED as error:
            self._services.warn_once(("stuck", type(error)), error, "The stacks of a stuck run could not be written.")
