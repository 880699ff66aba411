"""Makes the OpenAPI document from the descriptions of the responders."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from typing import Any, TypeVar

import falcon
from apispec import APISpec
from pydantic import BaseModel, TypeAdapter

from ...version import own_version
from .documents import ProblemDocument, ProgressDocument
from .queries import Query
from .rfc9457 import PROBLEM_TYPE

#: The answers that are not documents: a file of any type, a page or redirection, a problem, the progress of a report.
FILE = "file"
PAGE = "page"
PROBLEM = ProblemDocument
PROGRESS = ProgressDocument

#: The answers to a form of a page.
FORM_ANSWERS = {303: PAGE, **dict.fromkeys((400, 403, 404, 409, 413, 415), PROBLEM)}

_REF = "#/components/schemas/{model}"
_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class Operation:
    """The description of one method of one address."""

    method: str
    path: str
    "With its parameters in braces."
    query: type[Query] | None = None
    body: type[BaseModel] | None = None
    "The JSON body of the request."
    answers: Mapping[int, Any] = field(default_factory=dict)
    "Status -> the type of the document, `FILE`, `PAGE`, or None for an empty body."
    open_to_all: bool = False
    "Whether it works without a token."
    summary: str = ""


def operation(method: str, path: str, **fields: Any) -> Callable[[_Function], _Function]:
    """Describes a responder; its docstring becomes the summary. The fields are those of `Operation`."""

    def describe(function: _Function) -> _Function:
        summary = inspect.getdoc(function) or ""
        described = Operation(method=method, path=path, summary=summary, **fields)
        function.operations = (*getattr(function, "operations", ()), described)  # type: ignore[attr-defined]
        return function

    return describe


class OpenApiResource:
    """The document of all resources of the app.

    Parameters:
      resources: The resources with methods that `operation` describes.
    """

    def __init__(self, resources: Iterable[object]) -> None:
        self._operations = [
            described
            for resource in resources
            for _, method in inspect.getmembers(type(resource), inspect.isfunction)
            for described in getattr(method, "operations", ())
        ]

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.media = self._document

    on_head = on_get

    @cached_property
    def _document(self) -> dict[str, Any]:
        spec = APISpec(
            title="dramatiq_diag",
            version=own_version(),
            openapi_version="3.1.0",
            info={"description": "Where did this task's time and memory go."},
        )
        for name, scheme in (("token", "bearer"), ("password", "basic")):
            spec.components.security_scheme(name, {"type": "http", "scheme": scheme})
        schemas = self._add_schemas(spec)
        for path in dict.fromkeys(described.path for described in self._operations):
            spec.path(
                path=path,
                parameters=_path_parameters(path),
                operations={
                    described.method: _operation_object(described, schemas)
                    for described in self._operations
                    if described.path == path
                },
            )
        return spec.to_dict()

    def _add_schemas(self, spec: APISpec) -> dict[Any, Any]:
        """Adds the documents to the components. Returns: Type -> its reference."""
        types = {
            answer: TypeAdapter(answer)
            for described in self._operations
            for answer in (PROBLEM, *described.answers.values())
            if answer not in (None, FILE, PAGE)
        }
        inputs: list[Any] = [(kind, "serialization", adapter) for kind, adapter in types.items()]
        found, definitions = TypeAdapter.json_schemas(inputs, ref_template=_REF)
        for name, schema in definitions.get("$defs", {}).items():
            spec.components.schema(name, schema)
        return {kind: found[kind, "serialization"] for kind in types}


def _path_parameters(path: str) -> list[dict[str, Any]]:
    names = [piece.partition("}")[0] for piece in path.split("{")[1:]]
    return [
        {"in": "path", "name": name, "required": True, "schema": {"type": "string", "minLength": 1}} for name in names
    ]


def _operation_object(described: Operation, schemas: Mapping[Any, Any]) -> dict[str, Any]:
    answers = {421: PROBLEM, 431: PROBLEM, 500: PROBLEM, 503: PROBLEM, **described.answers}
    if not described.open_to_all:
        answers |= {401: PROBLEM, 429: PROBLEM}
    summary, _, description = described.summary.partition("\n")
    return {
        "summary": summary,
        **({"description": description.strip()} if description else {}),
        "parameters": [] if described.query is None else _query_parameters(described.query),
        **({} if described.body is None else {"requestBody": _request_body(described.body)}),
        "responses": {str(status): _response(status, answers[status], schemas) for status in sorted(answers)},
        "security": [] if described.open_to_all else [{}, {"token": []}, {"password": []}],
    }


def _request_body(body: type[BaseModel]) -> dict[str, Any]:
    return {"required": True, "content": {falcon.MEDIA_JSON: {"schema": body.model_json_schema()}}}


def _query_parameters(query: type[Query]) -> list[dict[str, Any]]:
    schema = query.model_json_schema(ref_template=_REF)
    definitions = schema.get("$defs", {})
    return [
        {
            "in": "query",
            "name": name,
            "required": name in schema.get("required", ()),
            "description": found.pop("description", ""),
            "schema": _inlined(found, definitions),
        }
        for name, found in schema["properties"].items()
    ]


def _inlined(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """Returns: The schema of a parameter without references, titles, and the null of an absent parameter."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema if item != {"type": "null"}]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {
        key: _inlined(value, definitions)
        for key, value in schema.items()
        if key not in ("title", "description") and not (key == "default" and value is None)
    }


def _response(status: int, answer: Any, schemas: Mapping[Any, Any]) -> dict[str, Any]:
    response: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    html = {"text/html": {"schema": {"type": "string"}}}
    if answer == FILE:
        response["content"] = {"*/*": {"schema": {}}}
    elif answer == PAGE:
        response["content"] = html
    elif answer is not None:
        media_type = PROBLEM_TYPE if answer is PROBLEM else falcon.MEDIA_JSON
        response["content"] = {media_type: {"schema": schemas[answer]}, **html}
    return response
