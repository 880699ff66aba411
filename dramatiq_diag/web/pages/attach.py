"""The form that attaches collectors to a running task."""

from __future__ import annotations

from typing import Any

from ...documents.fields import task_href
from ...store.allowed import allowed_names
from ..backend import Backend


def attach_values(backend: Backend, task_id: str) -> dict[str, Any]:
    """Returns: The variables of the form's template."""
    return {
        "diagnostics": allowed_names(backend.settings),
        "attach_token": backend.signer.action_token(attach_form_subject(task_id)),
    }


def attach_form_subject(task_id: str) -> str:
    """Returns: The subject that the token of the form is signed for."""
    return f"attachments to {task_href(task_id)}"
