"""Says which diagnostics may be asked for, by a capture or for a running task."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..collectors.names import ALL, expand
from ..collectors.registry import collector_class
from ..policy.options import DiagnosticsRequest, validate_options
from ..settings import Settings


def allowed_names(settings: Settings) -> list[str]:
    """Returns: The collectors that may be asked for."""
    names = expand(settings.task_diagnostics, here=False) + expand(settings.task_diagnostics_on_request, here=False)
    return list(dict.fromkeys(names))


def reason_against(diagnostics: DiagnosticsRequest, settings: Settings) -> str | None:
    """Returns: Why these diagnostics, or their options, may not be asked for; None if they may."""
    allowed = allowed_names(settings)
    if not diagnostics:
        return f"The name of a diagnostic is needed: {', '.join(allowed) or 'none may be asked for'}."
    refused = [f"{name!r:.80}" for name in diagnostics if name not in allowed and not (name == ALL and allowed)][:10]
    if refused:
        return (
            f"Neither TASK_DIAGNOSTICS nor TASK_DIAGNOSTICS_ON_REQUEST has {', '.join(refused)}, here; what may be "
            f"asked for is {', '.join(allowed) or 'nothing'}. Set TASK_DIAGNOSTICS_ON_REQUEST, for the workers too."
        )
    for name, options in diagnostics.items():
        if options and name == ALL:
            return f"{ALL} has no options; name the diagnostic, besides or in its place."
        if options and (reason := _reason_against_options(name, options, settings)) is not None:
            return reason
    return None


def _reason_against_options(name: str, options: Mapping[str, Any], settings: Settings) -> str | None:
    collector = collector_class(name)
    if collector is None:
        return f"The options of {name} cannot be judged here, where it cannot be imported."
    try:
        validate_options(collector, options, settings.options_on_request)
        json.dumps(options, allow_nan=False)
    except ValueError as error:
        return str(error)
    return None
