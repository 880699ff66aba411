"""Memory curves the size of a word, for lists."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence

from sqlalchemy.orm import Session

from ...errors import BlobMissingError, StoreUnavailableError
from ...reports.memory import sparkline_points
from ...statuses import DOWNLOADABLE_STATUSES
from ...store.models import Artifact
from ...store.runs import artifacts_of
from ..backend import Backend

#: The size of the drawing, in its own units.
WIDTH, HEIGHT = 120, 28
_MARGIN = 2


def sparklines(backend: Backend, session: Session, run_ids: Sequence[str]) -> Mapping[str, str]:
    """Returns: Run id -> the points of an SVG polyline, for each run that has a memory curve now."""
    found = artifacts_of(session, [uuid.UUID(run_id) for run_id in run_ids])
    lines = {}
    for run_id, artifacts in found.items():
        points = next(filter(None, (_points(backend, artifact) for artifact in artifacts)), None)
        if points:
            lines[str(run_id)] = points
    return lines


def _points(backend: Backend, artifact: Artifact) -> str | None:
    if artifact.name != "memory_profile" or artifact.status not in DOWNLOADABLE_STATUSES or not artifact.blob_name:
        return None
    try:
        with backend.blobs.open(artifact.blob_name) as file:
            return polyline(sparkline_points(file, artifact.size_bytes or 0))
    except (BlobMissingError, StoreUnavailableError):  # A cleanup was just there, or the blobs are away.
        return None


def polyline(samples: Sequence[tuple[float, float]]) -> str | None:
    """Returns: The `points` of a polyline that fills the drawing, or None for less than two samples."""
    if len(samples) < 2:
        return None
    seconds, sizes = zip(*samples, strict=True)
    width = max(seconds) - min(seconds) or 1
    height = max(sizes) - min(sizes)
    if height < max(sizes) * 0.02:  # So that noise does not look like growth.
        height = max(sizes) * 0.02 or 1
    return " ".join(
        f"{(second - min(seconds)) / width * WIDTH:.1f},"
        f"{HEIGHT - _MARGIN - (size - min(sizes)) / height * (HEIGHT - 2 * _MARGIN):.1f}"
        for second, size in samples
    )
