"""``GET /docs``: every call as a page, made from the OpenAPI document at ``/openapi.json``."""

from __future__ import annotations

import html
import json
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.responses import Response

from service.api.layout import page_response, table
from service.api.problems import MEDIA_TYPE


def router(app: FastAPI) -> APIRouter:
    """The routes of this module."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/docs")
    def docs() -> Response:
        document = app.openapi()
        calls = [
            _call(method, path, call) for path, methods in document["paths"].items() for method, call in methods.items()
        ]
        return page_response(
            "rjepa: HTTP interface",
            f"<h1>HTTP interface</h1><p>{html.escape(document['info']['description'])} For programs: "
            '<a href="/openapi.json">openapi.json</a>. Back to <a href="/">the picture</a>.</p>' + "".join(calls),
        )

    return routes


def _call(method: str, path: str, call: dict[str, Any]) -> str:
    parts = [f"<h2><code>{method.upper()} {html.escape(path)}</code></h2><p>{html.escape(call.get('summary', ''))}. "]
    parts.append(f"{html.escape(call.get('description', ''))}</p>")
    rows = [
        [f"<code>{html.escape(one['name'])}</code>", one["in"], _kind(one["schema"]), html.escape(_said(one))]
        for one in call.get("parameters", [])
    ]
    bodies = call.get("requestBody", {}).get("content", {})
    rows += [["body", html.escape(media), _kind(kind.get("schema", {})), ""] for media, kind in bodies.items()]
    if rows:
        parts.append(table(["parameter", "in", "type", "meaning"], rows, frozenset({1, 2, 3})))
    refused = []
    for status, answer in call["responses"].items():
        if int(status) >= 300:
            refused.append(f"{status} {', '.join(answer['content'][MEDIA_TYPE]['examples'])}")
            continue
        for media, kind in answer["content"].items():
            parts.append(f'<p class="quiet">{status}: {html.escape(media)} {_kind(kind.get("schema", {}))}</p>')
            if "example" in kind:
                parts.append(f"<details><summary>Example</summary><pre>{_shown(kind['example'])}</pre></details>")
    parts.append(f'<p class="quiet">Refusals: {html.escape("; ".join(refused))}</p>')
    return "".join(parts)


def _shown(example: Any) -> str:
    return html.escape(example if isinstance(example, str) else json.dumps(example, indent=1))


def _said(parameter: dict[str, Any]) -> str:
    return str(parameter.get("description") or parameter["schema"].get("description") or "")


def _kind(schema: dict[str, Any]) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        return html.escape(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"])
    words = [" or ".join(map(str, schema["enum"])) if "enum" in schema else str(schema.get("type", ""))]
    for key, text in (("minimum", "from"), ("maximum", "to"), ("default", "default"), ("pattern", "like")):
        if key in schema:
            words.append(f"{text} {schema[key]}")
    return html.escape(" ".join(words))
