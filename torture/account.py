"""The account at the end: what was started against what is stored."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sqlalchemy import select

from dramatiq_diag import Settings
from dramatiq_diag.errors import StoreError
from dramatiq_diag.maintenance.consistency import check
from dramatiq_diag.statuses import DOWNLOADABLE_STATUSES, RunStatus
from dramatiq_diag.store.models import Artifact, TaskRun
from dramatiq_diag.store.store import Store

from .recurring import Recurring

_ARTIFACTS = {"memory_profile", "pyinstrument_profile", "memray_profile"}


@dataclass(kw_only=True)
class Account:
    """What one set-up went through, and what is wrong with what it left."""

    name: str
    sent: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    boots: int = 0
    "Starts of Dramatiq's command."
    tasks: int = 0
    started: int = 0
    "Calls of a task's function; a task that was redelivered or retried has several."
    runs: dict[str, int] = field(default_factory=dict)
    artifacts: dict[str, int] = field(default_factory=dict)
    seen_stored: int = 0
    "Artifacts that were seen as stored or partial while the torture went on."
    recovered: int = 0
    "Runs that were left for `dramatiq-diag recover` at the end."
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{self.name}: {'clean' if not self.wrong else 'NOT CLEAN'}"]
        for name, value in asdict(self).items():
            if isinstance(value, dict):
                value = ", ".join(f"{key} {count}" for key, count in sorted(value.items()))
            if name not in ("name", "wrong"):
                lines.append(f"  {name.replace('_', ' '):12} {value}")
        return "\n".join([*lines, *(f"  WRONG        {text}" for text in self.wrong)])


class Notes:
    """The file in which the functions note their beginnings and ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def count(self, kind: str) -> Counter[str]:
        """Returns: Task id -> how many notes of the kind it has."""
        notes = (line.split() for line in self.path.read_text().splitlines())
        return Counter(task_id for found, task_id in notes if found == kind)


class Auditor(Recurring):
    """Looks now and then which artifacts are said to be stored; they must be there at the end."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(self._look, lambda: 2.0)
        self.seen: set[uuid.UUID] = set()
        self._store = Store(settings)

    def stop(self) -> None:
        super().stop()
        self._store.close()

    def _look(self) -> None:
        try:
            with self._store.session() as session:
                query = select(Artifact.artifact_id).where(Artifact.status.in_(DOWNLOADABLE_STATUSES))
                self.seen.update(session.execute(query).scalars())
        except StoreError:  # It is away, which is what this is about.
            return


def recover(settings: Settings, environment: dict[str, str]) -> tuple[int, list[str]]:
    """Runs `dramatiq-diag recover`. Returns: How many runs it recovered, and what is wrong."""
    command = [str(Path(sys.executable).with_name("dramatiq-diag")), "recover", "--json"]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    if done.returncode:
        return 0, [f"recover exited with {done.returncode}: {done.stdout}{done.stderr}"]
    return json.loads(done.stdout)["recovered_runs"], [
        f"{path} is left in the spool" for path in sorted(settings.spool.rglob("*"))
    ]


def settle(account: Account, settings: Settings, notes: Notes, seen: set[uuid.UUID]) -> None:
    """Compares what was started with what is stored."""
    store = Store(settings)
    with store.session() as session:
        runs = session.execute(select(TaskRun)).scalars().all()
        artifacts = session.execute(select(Artifact)).scalars().all()
    findings = check(store)
    store.close()
    started = notes.count("started")
    account.tasks, account.started = len(started), started.total()
    account.runs = dict(Counter(run.status for run in runs))
    account.artifacts = dict(Counter(artifact.status for artifact in artifacts))
    account.seen_stored = len(seen)
    account.wrong += _wrong_runs(started, runs)
    account.wrong += _wrong_artifacts(runs, artifacts, seen)
    account.wrong += [f"check: {kind} {names}" for kind, names in asdict(findings).items() if names]


def _wrong_runs(started: Counter[str], runs: list[TaskRun]) -> Iterator[str]:
    stored = Counter(run.task_id for run in runs)
    for task_id, count in started.items():
        if stored[task_id] < count:
            yield f"task {task_id} was started {count} times and has {stored[task_id]} runs"
    for run in runs:
        if run.status == RunStatus.RUNNING:
            yield f"run {run.run_id} of task {run.task_id} is still running"


def _wrong_artifacts(runs: list[TaskRun], artifacts: list[Artifact], seen: set[uuid.UUID]) -> Iterator[str]:
    names: dict[uuid.UUID, list[str]] = {run.run_id: [] for run in runs}
    for artifact in artifacts:
        names[artifact.run_id].append(artifact.name)
        if artifact.status not in DOWNLOADABLE_STATUSES and not artifact.reason:
            yield f"artifact {artifact.artifact_id} is {artifact.status} without a reason"
    for run_id, found in names.items():
        if sorted(found) != sorted(_ARTIFACTS):
            yield f"run {run_id} has the artifacts {sorted(found)}"
    lost = seen - {artifact.artifact_id for artifact in artifacts if artifact.status in DOWNLOADABLE_STATUSES}
    if lost:
        yield f"{len(lost)} artifacts had been stored and are not any more, {min(lost)} among them"
