"""``GET /assets/{digest}/{name}``: the style sheets, modules and icon the dashboard's page loads.

The path carries a digest over all of them, so a browser may keep each for ever: another version has another path,
and modules that import each other by relative names never mix two versions.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi import Path as PathParameter
from starlette.responses import Response

from service.api.problems import Problem

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""What is served, by the end of its name."""
FOR_EVER = "private, max-age=31536000, immutable"
"""Private: with tokens on, no shared cache may hand it to others."""


@dataclass(frozen=True)
class Asset:
    """One file as it is sent, plain and compressed; ``etag`` in its quotes."""

    plain: bytes
    packed: bytes
    media_type: str
    etag: str


def text_of(name: str) -> str:
    """A file of the dashboard, out of the installed package."""
    return (files("service.dashboard") / name).read_text(encoding="utf-8")


@cache
def every_asset() -> dict[str, Asset]:
    """All that is served, by name."""
    found = {}
    for entry in sorted(files("service.dashboard").iterdir(), key=lambda one: one.name):
        media_type = TYPES.get("." + entry.name.rpartition(".")[2])
        if media_type is not None:
            plain = entry.read_bytes()
            etag = f'"{hashlib.sha256(plain).hexdigest()[:32]}"'
            found[entry.name] = Asset(plain, gzip.compress(plain, 9, mtime=0), media_type, etag)
    return found


@cache
def digest() -> str:
    """Of all assets together, 16 hexadecimal digits."""
    told = hashlib.sha256()
    for name, asset in every_asset().items():
        told.update(f"{name} {asset.etag}\n".encode())
    return told.hexdigest()[:16]


def router() -> APIRouter:
    """The routes of this module."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/assets/{digest}/{name}")
    def get_asset(
        request: Request,
        version: Annotated[str, PathParameter(alias="digest", pattern="^[0-9a-f]{16}$")],
        name: Annotated[str, PathParameter(pattern=r"^[a-z_]{1,40}\.(css|js|svg)$")],
    ) -> Response:
        asset = every_asset().get(name) if version == digest() else None
        if asset is None:
            raise Problem(404, "not_found", f"the dashboard has no {name} of version {version}; load the page again")
        headers = {"Cache-Control": FOR_EVER, "ETag": asset.etag, "Vary": "Accept-Encoding"}
        if asset.etag in request.headers.get("if-none-match", ""):
            return Response(None, 304, headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(asset.packed, headers=headers | {"Content-Encoding": "gzip"}, media_type=asset.media_type)
        return Response(asset.plain, headers=headers, media_type=asset.media_type)

    return routes
