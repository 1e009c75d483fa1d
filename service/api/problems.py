"""Errors as RFC 9457 says: ``application/problem+json`` for every refusal, the framework's own included.

``code`` is the short name to program against, ``detail`` says what was wrong and the way out. What the
program did not expect is logged with its trace and answered with 500 and no inside.
"""

from __future__ import annotations

import http
import json
import logging
import sqlite3
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from service.api.headers import HEADERS
from service.errors import (
    CheckpointBad,
    DirectoryRefused,
    HistoryGone,
    RequestRefused,
    ServiceError,
    StorageFailed,
    WorkerUnreachable,
)

MEDIA_TYPE = "application/problem+json"

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")

log = logging.getLogger("rjepa.api")

_CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    408: "too_slow",
    413: "too_large",
    415: "unsupported_media_type",
    422: "invalid",
    429: "too_many_requests",
}


class ProblemBody(BaseModel):
    """An error, as RFC 9457 has it."""

    type: str = Field(description="always about:blank: status and code say it all", examples=["about:blank"])
    title: str = Field(description="the status in words", examples=["Not Found"])
    status: int = Field(description="the HTTP status", examples=[404])
    detail: str = Field(description="what was wrong and the way out", examples=["there is no stream 's1'"])
    instance: str = Field(description="the path that was asked for", examples=["/v1/streams/s1"])
    code: str = Field(description="a short name to program against", examples=["not_found"])


class Problem(HTTPException):
    """A refusal with a code of its own; ``more`` becomes further members of the body."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        headers: Mapping[str, str] | None = None,
        more: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.code = code
        self.more = more or {}


def unknown_stream(stream: str) -> Problem:
    """404 for a stream nobody has ever said hello for."""
    return Problem(404, "unknown_stream", f"there is no stream {stream!r}; GET /v1/streams lists them")


def problem_response(error: HTTPException, instance: str) -> Response:
    """The answer that tells ``error``."""
    status = error.status_code
    body = {
        "type": "about:blank",
        "title": _title(status),
        "status": status,
        "detail": str(error.detail),
        "instance": instance,
        "code": getattr(error, "code", _CODES.get(status, "error")),
    } | getattr(error, "more", {})
    return Response(json.dumps(body), status, headers=HEADERS | dict(error.headers or {}), media_type=MEDIA_TYPE)


def as_problem(error: ServiceError) -> Problem:
    """What a service's error means over HTTP."""
    if isinstance(error, RequestRefused):
        return Problem(error.status, error.code, str(error))
    if isinstance(error, (WorkerUnreachable, StorageFailed, DirectoryRefused)):
        return Problem(503, error.code, str(error), {"Retry-After": "2"})
    if isinstance(error, (CheckpointBad, HistoryGone)):
        return Problem(409, error.code, str(error))
    return Problem(500, error.code, str(error))


def install(app: FastAPI) -> None:
    """Answer every error of ``app`` as a problem."""

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 405:
            error = _other_method(request)
        return problem_response(error, request.url.path)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        told = [{"where": ".".join(map(str, one["loc"])), "what": str(one["msg"])[:200]} for one in error.errors()[:10]]
        detail = "; ".join(f"{one['where']}: {one['what']}" for one in told)
        return problem_response(Problem(422, "invalid", detail, more={"errors": told}), request.url.path)

    async def service(request: Request, error: Exception) -> Response:
        assert isinstance(error, ServiceError)
        return problem_response(as_problem(error), request.url.path)

    async def database(request: Request, error: Exception) -> Response:
        log.error("the database could not be read for %s: %s", request.url.path, error)
        problem = Problem(503, "storage_failed", f"the database could not be read: {error}", {"Retry-After": "2"})
        return problem_response(problem, request.url.path)

    async def unexpected(request: Request, error: Exception) -> Response:
        problem = Problem(500, "internal", "this is a fault of the program; its log says more")
        return problem_response(problem, request.url.path)

    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(ServiceError, service)
    app.add_exception_handler(sqlite3.Error, database)
    app.add_exception_handler(Exception, unexpected)


def _other_method(request: Request) -> Problem:
    """405 with the methods of all routes of the path; the framework names those of the first alone."""
    there = [method for method in METHODS if _is_routed(request, method)]
    detail = f"{request.method} can't be done here; there are: {', '.join(there)}"
    return Problem(405, "method_not_allowed", detail, {"Allow": ", ".join(there)})


def _is_routed(request: Request, method: str) -> bool:
    asked = {**request.scope, "method": method}
    return any(route.matches(asked)[0] == Match.FULL for route in request.app.routes)


def _title(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Error"
