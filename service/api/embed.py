"""``POST /v1/embed``: what the learner makes of a picture with nothing before it. Changes nothing.

The body is a PNG or JPEG file, or 7,500 bytes of RGB (``application/octet-stream``, 50 x 50 x 3, row by
row), or JSON with the patch described as on the wire and its bytes in base64; in JSON also up to 64 of them at once,
all embedded by the weights of one moment. 64 raw patches are 640 kB in base64: within every body's limit.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Depends, Request
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import Response

from clients.wire import PATCH_DEGREES, PATCH_HEIGHT_PX, PATCH_WIDTH_PX, PatchHeader, WireError
from service.api.patch import png
from service.api.problems import Problem
from service.api.shapes import Embedded, EmbeddedMany
from service.api.site import Site, answer
from service.patches import DEGREES_TOLERANCE, decode_patch

ENCODING_OF: dict[str, Literal["raw", "png", "jpeg"]] = {
    "image/png": "png",
    "image/jpeg": "jpeg",
    "application/octet-stream": "raw",
}


MAX_PATCHES = 64
"""As many as the worker takes in one call."""


def _gray() -> str:
    """A gray patch as PNG in base64: an example."""
    return base64.b64encode(png(np.full((PATCH_HEIGHT_PX, PATCH_WIDTH_PX, 3), 128, dtype=np.uint8))).decode("ascii")


class PatchWish(BaseModel):
    """A patch in JSON."""

    model_config = ConfigDict(extra="forbid")

    encoding: Literal["raw", "png", "jpeg"] = Field(description="what data is", examples=["png"])
    height: Literal[50] = Field(description="px")
    width: Literal[50] = Field(description="px")
    channels: Literal[3] = Field(3, description="red, green and blue")
    color: Literal["rgb"] = Field("rgb", description="the order of the channels")
    degrees: float = Field(
        PATCH_DEGREES,
        ge=PATCH_DEGREES * (1 - DEGREES_TOLERANCE),
        le=PATCH_DEGREES * (1 + DEGREES_TOLERANCE),
        description="how much of the visual field it spans, degrees",
    )
    data: str = Field(
        description="the bytes in base64; raw: height x width x 3 uint8, row by row",
        json_schema_extra={"format": "byte", "examples": [_gray()]},
    )


class EmbedWish(BaseModel):
    """One patch."""

    model_config = ConfigDict(extra="forbid")

    patch: PatchWish = Field(description="the picture")


class EmbedManyWish(BaseModel):
    """Several patches; the answer has their embeddings in the same order, all by the weights of one moment."""

    model_config = ConfigDict(extra="forbid")

    patches: Annotated[
        list[PatchWish], Field(min_length=1, max_length=MAX_PATCHES, description="the pictures, 1 to 64 of them")
    ]


_BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_JSON: dict[str, Any] = {
    "schema": {"anyOf": [{"$ref": f"#/components/schemas/{one.__name__}"} for one in (EmbedWish, EmbedManyWish)]}
}
_BODY = {
    "requestBody": {"required": True, "content": {"application/json": _JSON} | dict.fromkeys(ENCODING_OF, _BINARY)}
}


async def _body(request: Request) -> bytes:
    return await request.body()


def router(site: Site) -> APIRouter:
    """The routes of this module."""
    routes = APIRouter(tags=["model"])

    @routes.post(
        "/v1/embed",
        response_model=Embedded | EmbeddedMany,
        openapi_extra=_BODY,
        summary="The embeddings of images with today's weights from the zero state, learning nothing",
        dependencies=[site.queue("embed")],
    )
    def embed(request: Request, body: Annotated[bytes, Depends(_body)]) -> Response:
        """It waits while fixations do: learning goes before, between two images too. 503 with code busy when that
        takes too long. One image as `patch` or as the body itself gives `embedding`, `patches` give `embeddings`."""
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        wish = _wish(body) if media_type == "application/json" else None
        if isinstance(wish, EmbedManyWish):
            patches = [_decoded(one, f"patches.{i}") for i, one in enumerate(wish.patches)]
            return answer({"embeddings": site.worker.embed(patches)})
        patch = _taken(media_type, body) if wish is None else _decoded(wish.patch, "patch")
        return answer({"embedding": site.worker.embed([patch])[0]})

    return routes


def _wish(body: bytes) -> EmbedWish | EmbedManyWish:
    """What JSON asks for. Raises a :class:`Problem`, 422."""
    kind = EmbedManyWish if b'"patches"' in body else EmbedWish  # so that what is wrong is said of the one meant
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise Problem(422, "invalid", f"{where}: {first['msg']}") from None


def _decoded(wish: PatchWish, where: str) -> NDArray[np.uint8]:
    """The patch described in JSON, uint8 (50, 50, 3) RGB. Raises a :class:`Problem`, 422, naming it ``where``."""
    try:
        header = _header(wish.encoding, wish.height, wish.width, wish.degrees)
        data = base64.b64decode(wish.data, validate=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        told = ".".join(str(part) for part in first["loc"])
        raise Problem(422, "invalid", f"{where}.{told}: {first['msg']}") from None
    except (binascii.Error, ValueError):
        raise Problem(422, "invalid", f"{where}.data: not base64") from None
    return _patch(header, data, where)


def _taken(media_type: str, body: bytes) -> NDArray[np.uint8]:
    """The patch that is the body itself. Raises a :class:`Problem`, 415 or 422."""
    if media_type not in ENCODING_OF:
        taken = ", ".join(["application/json", *ENCODING_OF])
        raise Problem(
            415, "unsupported_media_type", f"Content-Type {media_type[:80]!r} is not taken; there are: {taken}"
        )
    return _patch(_header(ENCODING_OF[media_type], PATCH_HEIGHT_PX, PATCH_WIDTH_PX, PATCH_DEGREES), body, "body")


def _patch(header: PatchHeader, data: bytes, where: str) -> NDArray[np.uint8]:
    try:
        return decode_patch(header, data)
    except WireError as error:
        raise Problem(422, error.code.value, f"{where}: {error.detail}") from None


def _header(encoding: Literal["raw", "png", "jpeg"], height: int, width: int, degrees: float) -> PatchHeader:
    return PatchHeader(encoding=encoding, height=height, width=width, channels=3, color="rgb", degrees=degrees)
