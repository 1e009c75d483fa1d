"""The OpenAPI document: what the framework knows of the calls, with every refusal and an example of everything.

An example of an object is put together from those of its fields, so that there is one place to write each.
"""

from __future__ import annotations

import http
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from service.api import embed, problems
from service.api.codes import CALLS, REFUSALS
from service.api.sessions import COOKIE

Json = dict[str, Any]
_REF = "#/components/schemas/"


def describe(app: FastAPI) -> None:
    """Have ``app`` tell the whole document at ``/openapi.json``."""
    make = app.openapi

    def openapi() -> Json:
        if app.openapi_schema is None:
            _complete(make())
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(document: Json) -> None:
    parts = document.setdefault("components", {})
    schemas = parts.setdefault("schemas", {})
    shapes: tuple[type[BaseModel], ...] = (
        problems.ProblemBody,
        embed.PatchWish,
        embed.EmbedWish,
        embed.EmbedManyWish,
    )
    for shape in shapes:
        schema = shape.model_json_schema(ref_template=f"{_REF}{{model}}")
        schemas[shape.__name__] = {key: value for key, value in schema.items() if key != "$defs"}
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    parts["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer"},
        "session": {"type": "apiKey", "in": "cookie", "name": COOKIE},
    }
    document["security"] = [{}, {"token": []}, {"session": []}]
    for path, methods in document["paths"].items():
        for method, call in methods.items():
            _complete_call(call, f"{method.upper()} {path}", schemas)


def _complete_call(call: Json, name: str, schemas: Json) -> None:
    answers = {status: told for status, told in call["responses"].items() if status.isdecimal() and int(status) < 300}
    for told in answers.values():
        for media in told.get("content", {}).values():
            _exemplify(media, schemas)
    for media in call.get("requestBody", {}).get("content", {}).values():
        _exemplify(media, schemas)
        call["requestBody"]["required"] = True  # be it {}: only what declares itself as JSON changes anything
    for parameter in call.get("parameters", []):
        if not {"example", "examples"} & set(parameter):
            parameter["example"] = example_of(parameter["schema"], schemas)
    call["responses"] = answers | refusals(CALLS[name])


def refusals(codes: tuple[str, ...]) -> Json:
    """The answers, by status, of a call that may refuse with ``codes``; each code has an example."""
    told: Json = {}
    for refusal in sorted((REFUSALS[code] for code in set(codes)), key=lambda one: (one.status, one.code)):
        media: Json = {"schema": {"$ref": f"{_REF}{problems.ProblemBody.__name__}"}, "examples": {}}
        answer = told.setdefault(str(refusal.status), {"description": "", "content": {problems.MEDIA_TYPE: media}})
        answer["description"] += f"{'; ' if answer['description'] else ''}`{refusal.code}`: {refusal.said}"
        answer["content"][problems.MEDIA_TYPE]["examples"][refusal.code] = {
            "value": {
                "type": "about:blank",
                "title": http.HTTPStatus(refusal.status).phrase,
                "status": refusal.status,
                "detail": refusal.said,
                "instance": "/v1/...",
                "code": refusal.code,
            }
        }
    return told


def _exemplify(media: Json, schemas: Json) -> None:
    """Put an example beside a schema, unless there is one or it is of bytes."""
    schema = media.get("schema", {})
    if schema and schema.get("format") != "binary" and not {"example", "examples"} & set(media):
        media["example"] = example_of(schema, schemas)


def example_of(schema: Json, schemas: Json) -> Any:
    """An example of ``schema``: its own, or made of those of its parts. Raises KeyError where a part has none."""
    for key in ("const", "default"):
        if schema.get(key) is not None:
            return schema[key]
    if "examples" in schema:
        return schema["examples"][0]
    if "$ref" in schema:
        return example_of(schemas[schema["$ref"].removeprefix(_REF)], schemas)
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "object":
        return {name: example_of(part, schemas) for name, part in schema.get("properties", {}).items()}
    if "anyOf" in schema:
        return example_of(schema["anyOf"][0], schemas)
    if schema.get("type") == "array":
        return [example_of(schema["items"], schemas)]
    if schema.get("type") == "boolean":
        return True
    raise KeyError(f"no example in {schema}")
