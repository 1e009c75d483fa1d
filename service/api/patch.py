"""``GET /v1/streams/{s}/fixations/{seq}/patch``: the stored patch as PNG."""

from __future__ import annotations

import json

import cv2
import numpy as np
from fastapi import APIRouter
from numpy.typing import NDArray
from starlette.responses import Response

from clients.wire import PatchHeader
from service.api.problems import Problem
from service.api.site import SeqNumber, Site, StreamId, check_stream
from service.history import PatchRow, patch_row
from service.patches import decode_patch

BINARY = {"type": "string", "format": "binary"}


def router(site: Site) -> APIRouter:
    """The routes of this module."""
    routes = APIRouter(tags=["streams"])

    @routes.get(
        "/v1/streams/{stream}/fixations/{seq}/patch",
        response_class=Response,
        responses={200: {"content": {"image/png": {"schema": BINARY}}, "description": "50 x 50 px, 8 bits RGB"}},
        summary="The stored patch as PNG",
    )
    def get_patch(stream: StreamId, seq: SeqNumber) -> Response:
        """404 where the fixation is not known, was lost, or its patch is no longer kept."""
        with site.read() as connection:
            check_stream(connection, stream)
            row = patch_row(connection, stream, seq)
            held = connection.execute("SELECT 1 FROM journal WHERE stream = ? AND seq = ?", (stream, seq)).fetchone()
        if row is None and held is not None:
            raise Problem(404, "patch_dropped", f"the patch of fixation {seq} of {stream!r} is not kept (any more)")
        if row is None:
            raise Problem(404, "unknown_fixation", f"stream {stream!r} has no fixation {seq}")
        return Response(png(_decoded(row)), media_type="image/png")

    return routes


def png(patch: NDArray[np.uint8]) -> bytes:
    """A patch, uint8 (height, width, 3) RGB, as the bytes of a PNG."""
    done, encoded = cv2.imencode(".png", patch[:, :, ::-1])
    if not done:
        raise ValueError(f"a patch of shape {patch.shape} can't be encoded")
    return encoded.tobytes()


def _decoded(row: PatchRow) -> NDArray[np.uint8]:
    return decode_patch(PatchHeader.model_validate(json.loads(row.body)["patch"]), row.bytes)
