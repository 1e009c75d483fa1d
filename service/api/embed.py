"""``POST /v1/embed``: what the learner makes of one picture with nothing before it. Changes nothing.

The body is a PNG or JPEG file, or 7,500 bytes of RGB (``application/octet-stream``, 50 x 50 x 3, row by
row), or JSON with the patch described as on the wire and its bytes in base64.
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
from service.api.problems import Problem
from service.api.shapes import Embedded
from service.api.site import Site, answer
from service.patches import decode_patch

ENCODING_OF: dict[str, Literal["raw", "png", "jpeg"]] = {
    "image/png": "png",
    "image/jpeg": "jpeg",
    "application/octet-stream": "raw",
}


class PatchWish(BaseModel):
    """A patch in JSON."""

    model_config = ConfigDict(extra="forbid")

    encoding: Literal["raw", "png", "jpeg"]
    height: int = Field(description="px", examples=[PATCH_HEIGHT_PX])
    width: int = Field(description="px", examples=[PATCH_WIDTH_PX])
    channels: Literal[3] = 3
    color: Literal["rgb"] = "rgb"
    degrees: float = Field(PATCH_DEGREES, gt=0.0, le=180.0)
    data: str = Field(description="the bytes in base64; raw: height x width x 3 uint8, row by row")


class EmbedWish(BaseModel):
    """The JSON body of ``POST /v1/embed``."""

    model_config = ConfigDict(extra="forbid")

    patch: PatchWish


_BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/EmbedWish"}}}
        | dict.fromkeys(ENCODING_OF, _BINARY),
    }
}


async def _body(request: Request) -> bytes:
    return await request.body()


def router(site: Site) -> APIRouter:
    """The routes of this module."""
    routes = APIRouter(tags=["model"])

    @routes.post(
        "/v1/embed",
        response_model=Embedded,
        openapi_extra=_BODY,
        summary="The embedding of an image with today's weights from the zero state, learning nothing",
        dependencies=[site.queue("embed")],
    )
    def embed(request: Request, body: Annotated[bytes, Depends(_body)]) -> Response:
        """It waits while fixations do: learning goes before. 503 with code busy when that takes too long."""
        patch = read_patch(request.headers.get("content-type", ""), body)
        rgb = base64.b64encode(patch.tobytes()).decode("ascii")
        return answer({"embedding": site.worker.embed(patch.shape[0], patch.shape[1], rgb)})

    return routes


def read_patch(content_type: str, body: bytes) -> NDArray[np.uint8]:
    """The patch in a request's body, uint8 (50, 50, 3) RGB. Raises a :class:`Problem`, 415 or 422."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "application/json":
        header, data = _from_json(body)
    elif media_type in ENCODING_OF:
        header = _header(ENCODING_OF[media_type], PATCH_HEIGHT_PX, PATCH_WIDTH_PX, PATCH_DEGREES)
        data = body
    else:
        taken = ", ".join(["application/json", *ENCODING_OF])
        raise Problem(
            415, "unsupported_media_type", f"Content-Type {media_type[:80]!r} is not taken; there are: {taken}"
        )
    try:
        return decode_patch(header, data)
    except WireError as error:
        raise Problem(422, error.code.value, error.detail) from None


def _from_json(body: bytes) -> tuple[PatchHeader, bytes]:
    try:
        wish = EmbedWish.model_validate_json(body).patch
        header = _header(wish.encoding, wish.height, wish.width, wish.degrees)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise Problem(422, "invalid", f"{where}: {first['msg']}") from None
    try:
        return header, base64.b64decode(wish.data, validate=True)
    except (binascii.Error, ValueError):
        raise Problem(422, "invalid", "patch.data: not base64") from None


def _header(encoding: Literal["raw", "png", "jpeg"], height: int, width: int, degrees: float) -> PatchHeader:
    return PatchHeader(encoding=encoding, height=height, width=width, channels=3, color="rgb", degrees=degrees)
