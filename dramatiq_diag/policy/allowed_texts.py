"""The sentences of error messages that say which rules and triggers are allowed."""

from __future__ import annotations

from ..collectors.names import ALL, LATE_NAMES, STACKS

ALLOWED_RULES = (
    "rules, comma separated, of which one has to hold: duration>5s, peak_rss>500MiB, rss_growth>100MiB, failed, "
    "slower_than>p95"
)
ALLOWED_TRIGGERS = (
    "conditions, each with what it begins, such as `after 30s: pyinstrument, stacks; rss>1GiB: memray`; "
    f"out of {', '.join((*LATE_NAMES, STACKS, ALL))}, as far as TASK_DIAGNOSTICS or TASK_DIAGNOSTICS_ON_REQUEST has it"
)
