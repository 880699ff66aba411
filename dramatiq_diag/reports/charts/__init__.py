"""Charts as Vega-Lite specifications, and what draws them.

Names and ids that come from messages and programs are values of the data here, never part of an expression, of the name
of a field or of a title. The data are named, so a page may fill in its own.
"""

from .drawing import Spec, bundle, config, library, write_bundle
from .flame import Box, flame_chart
from .history import history_chart
from .memory import Band, Sample, memory_chart

__all__ = [
    "Band",
    "Box",
    "Sample",
    "Spec",
    "bundle",
    "config",
    "flame_chart",
    "history_chart",
    "library",
    "memory_chart",
    "write_bundle",
]
