"""``GET /docs``: every call as a page, made from the OpenAPI document at ``/openapi.json``."""

from __future__ import annotations

import html
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.responses import Response

from service.api.layout import page_response, table


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
    for status, answer in call["responses"].items():
        media = ", ".join(answer.get("content", {}))
        if status.isdecimal() and int(status) < 300:
            kinds: list[dict[str, Any]] = list(answer.get("content", {}).values())
            schema = kinds[0].get("schema", {}) if kinds else {}
            parts.append(f'<p class="quiet">{status}: {html.escape(media)} {_kind(schema)}</p>')
    return "".join(parts)


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
