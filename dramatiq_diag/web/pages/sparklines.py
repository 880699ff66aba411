"""Small memory curves for lists of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from ...errors import BlobMissingError, StoreUnavailableError
from ...reports.memory import sparkline_points
from ...statuses import DOWNLOADABLE_STATUSES
from ...store.models import Artifact
from ..backend import Backend

#: The size of the drawing, in its own units.
WIDTH, HEIGHT = 120, 28
_MARGIN = 2


def sparklines(backend: Backend, artifacts: Mapping[UUID, Sequence[Artifact]]) -> dict[UUID, str]:
    """Returns: Run id -> the points of an SVG polyline, for each run whose memory curve can be read."""
    points = {
        run_id: _points(backend, artifact)
        for run_id, of_run in artifacts.items()
        for artifact in of_run
        if artifact.name == "memory_profile"
    }
    return {run_id: line for run_id, line in points.items() if line}


def _points(backend: Backend, artifact: Artifact) -> str | None:
    if artifact.status not in DOWNLOADABLE_STATUSES or not artifact.blob_name:
        return None
    try:
        with backend.blobs.open(artifact.blob_name) as file:
            return polyline(sparkline_points(file, artifact.size_bytes or 0))
    except (BlobMissingError, StoreUnavailableError):  # A cleanup has just removed it, or the blobs are out of reach.
        return None


def polyline(samples: Sequence[tuple[float, float]]) -> str | None:
    """Returns: The `points` of a polyline that fills the drawing, or None for less than two samples."""
    if len(samples) < 2:
        return None
    seconds, sizes = zip(*samples, strict=True)
    width = max(seconds) - min(seconds) or 1
    height = max(max(sizes) - min(sizes), max(sizes) * 0.02) or 1  # So that noise does not look like growth.
    return " ".join(
        f"{(second - min(seconds)) / width * WIDTH:.1f},"
        f"{HEIGHT - _MARGIN - (size - min(sizes)) / height * (HEIGHT - 2 * _MARGIN):.1f}"
        for second, size in samples
    )
