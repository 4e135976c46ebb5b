"""How the service describes itself in /openapi.json, beyond what the types of its routes say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI

from app.errors import Problem

Tree = dict[str, Any]

TITLE = "Facsimile"
DESCRIPTION = """Pictures from text by quantized models, each of which can be measured against its reference.

Work is a **job**: POST it, then poll it, wait for it with `Prefer: wait=60`, or follow its events. Errors are
[RFC 9457](https://www.rfc-editor.org/rfc/rfc9457) problems with a stable `code`.

`POST /v1/generations` with `{"model": "shapes-sd", "prompt": "a large red cube"}` makes a first picture;
`GET /v1/models` names the models, `GET /v1/catalogue` everything else that a request may name."""

_PROBLEMS = {
    400: "The body is not JSON",
    401: "No valid API key",
    404: "There is no such thing",
    409: "The name is taken",
    410: "The job's data set is gone",
    413: "The body is too large",
    415: "The body is not sent as JSON",
    422: "The request cannot be accepted; `errors` says why",
    429: "The queue is full",
    500: "A defect, or a card on disk that cannot be read",
    503: "The broker does not answer, or no worker has started yet",
}
_PROBLEM_REFERENCE = "#/components/schemas/Problem"
_UNUSED = ("HTTPValidationError", "ValidationError")
"""FastAPI's own shape of a refusal, which this service never answers."""


def problems(*statuses: int) -> dict[int | str, Tree]:
    """The `responses` of a route that may answer these problems."""
    return {status: {"model": Problem, "description": _PROBLEMS[status]} for status in statuses}


def stored(*media_types: str) -> dict[int | str, Tree]:
    """The `responses` of a route that answers a stored file in one of these forms."""
    schema = {"type": "string", "format": "binary"}
    return {
        200: {"content": {media_type: {"schema": schema} for media_type in media_types}},
        304: {"description": "It is the one you have"},
        **problems(401, 404),
    }


def describe(app: FastAPI) -> None:
    """Let the application's schema be corrected once, when it is first asked for."""
    generate = app.openapi

    def described() -> Tree:
        if app.openapi_schema is None:
            _correct(generate())
        return generate()

    app.openapi = described  # type: ignore[method-assign]


def _correct(schema: Tree) -> None:
    for operation in _operations(schema):
        for status, response in list(operation["responses"].items()):
            for media_type, content in list(response.get("content", {}).items()):
                reference = content.get("schema", {}).get("$ref", "")
                if reference.endswith(_UNUSED):
                    del operation["responses"][status]
                elif reference == _PROBLEM_REFERENCE:
                    response["content"]["application/problem+json"] = response["content"].pop(media_type)
    for name in _UNUSED:
        schema["components"]["schemas"].pop(name, None)
    _drop_object_defaults(schema["components"]["schemas"])


def _operations(schema: Tree) -> Iterator[Tree]:
    for methods in schema["paths"].values():
        yield from methods.values()


def _drop_object_defaults(schemas: Tree) -> None:
    """Generators of clients cannot write down a default that is an object: the description says it instead."""
    for schema in schemas.values():
        for part in schema.get("properties", {}).values():
            if isinstance(part.get("default"), dict):
                default = part.pop("default")
                part["description"] = f"{part.get('description', '')} Left out, it is `{default}`.".strip()
