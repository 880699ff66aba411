"""What a capture collects that is to find the line which keeps memory."""

from __future__ import annotations

from .options import DiagnosticsRequest

#: Small objects stand in arenas of Python's own allocator, which memray sees only if it records that one as well.
LEAK_OPTIONS: DiagnosticsRequest = {"memray": {"trace_python_allocators": True}}

#: How many runs are captured: what each of them keeps has the same line.
LEAK_RUNS = 3

#: Seconds after which the capture ends.
LEAK_DURATION_S = 86400.0
