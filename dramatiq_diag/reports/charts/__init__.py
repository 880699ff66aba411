"""Makes charts as Vega-Lite specifications, and draws them.

Names and ids from messages and programs stand only in the data: never in an expression, a field name or a title. The
data sets have names, so that a page can fill in its own.
"""

from .drawing import Spec, bundle, config, library, write_bundle
from .flame import Box, flame_chart
from .history import history_chart
from .memory import Band, Sample, memory_chart
from .resources import resources_chart

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
    "resources_chart",
    "write_bundle",
]
