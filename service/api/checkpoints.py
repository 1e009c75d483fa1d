"""``/v1/checkpoints``: list, take, look at, pin or label, download, go back to, delete."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Annotated, Any, BinaryIO

import anyio.to_thread
from fastapi import APIRouter, Depends, Query
from fastapi import Path as PathParameter
from starlette.responses import Response

from service.access import NAME_PATTERN
from service.api.problems import Problem
from service.api.security import json_only
from service.api.shapes import Checkpoint, CheckpointChange, Checkpoints, CheckpointWish, Deleted
from service.api.site import Anything, Site, answer
from service.api.streaming import Streamed
from service.manifests import Folder

EXAMPLE = "20261126T000000-0001199"
CheckpointId = Annotated[
    str, PathParameter(pattern=NAME_PATTERN, description="the checkpoint's id", examples=[EXAMPLE])
]
PIECE_BYTES = 1 << 20
_FILE: dict[str, Any] = {
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    "description": "a safetensors file",
    "headers": {
        "ETag": {"description": "its SHA-256, in quotes", "schema": {"type": "string"}},
        "Content-Disposition": {"description": "a name for the file", "schema": {"type": "string"}},
    },
}


def router(site: Site) -> APIRouter:
    """The routes of this module."""
    routes = APIRouter(prefix="/v1/checkpoints", tags=["checkpoints"])
    _looking(routes, Folder(site.settings.data_dir / "checkpoints"))
    _changing(routes, site)
    return routes


def _looking(routes: APIRouter, folder: Folder) -> None:
    @routes.get("", response_model=Checkpoints, summary="Checkpoints, newest first")
    def list_checkpoints(
        after: Annotated[
            str | None, Query(pattern=NAME_PATTERN, description="those older than this id", examples=[EXAMPLE])
        ] = None,
        limit: Annotated[int, Query(ge=1, le=1000, description="checkpoints a page")] = 100,
    ) -> Response:
        every = [manifest.json_object() for manifest in reversed(folder.list())]
        return answer(_page(every, after, limit))

    @routes.get("/{checkpoint}", response_model=Checkpoint, summary="One checkpoint")
    def get_checkpoint(checkpoint: CheckpointId) -> Response:
        return answer(folder.manifest(checkpoint).json_object())

    @routes.get(
        "/{checkpoint}/download",
        response_class=Response,
        responses={200: _FILE},
        summary="The parameters and states as a safetensors file",
    )
    def download_checkpoint(checkpoint: CheckpointId) -> Response:
        """Its SHA-256 is in the header ETag and in the checkpoint's `sha256`."""
        sha256 = folder.manifest(checkpoint).sha256
        try:
            file = folder.path(checkpoint).open("rb")
        except FileNotFoundError:
            raise Problem(409, "checkpoint_bad", f"checkpoint {checkpoint} has no parameters any more") from None
        headers = {
            "Content-Length": str(os.fstat(file.fileno()).st_size),
            "Content-Disposition": f'attachment; filename="{checkpoint}.safetensors"',
            "ETag": f'"{sha256}"',
        }
        return Streamed(_pieces(file), media_type="application/octet-stream", headers=headers)


def _changing(routes: APIRouter, site: Site) -> None:
    changing = [Depends(json_only), site.queue("command")]

    @routes.post(
        "",
        status_code=201,
        response_model=Checkpoint,
        summary="Take a checkpoint, with a label, pinned or not",
        dependencies=changing,
    )
    def take_checkpoint(wish: CheckpointWish | None = None) -> Response:
        """Answered once it is durable."""
        wanted = wish or CheckpointWish()
        taken = site.worker.command("checkpoint", label=wanted.label, pinned=wanted.pinned)["checkpoint"]
        return answer(taken, 201, {"Location": f"/v1/checkpoints/{taken['id']}"})

    @routes.post(
        "/{checkpoint}/restore",
        response_model=Checkpoint,
        summary="Go back: the old parameters, present cursors, a new timeline",
        dependencies=changing,
    )
    def restore_checkpoint(checkpoint: CheckpointId, body: Anything = None) -> Response:
        """Answered with the new checkpoint once it is durable; every stream then starts a new sequence."""
        return answer(site.worker.command("restore", checkpoint=checkpoint)["checkpoint"])

    @routes.patch(
        "/{checkpoint}",
        response_model=Checkpoint,
        summary="Pin a checkpoint or leave it to retention; change its label",
        dependencies=changing,
    )
    def change_checkpoint(checkpoint: CheckpointId, change: CheckpointChange) -> Response:
        """Answered once it is durable. One that is unpinned goes when retention has no other reason to keep it."""
        kept = site.worker.command("keep_checkpoint", checkpoint=checkpoint, pinned=change.pinned, label=change.label)
        return answer(kept["checkpoint"])

    @routes.delete("/{checkpoint}", response_model=Deleted, summary="Delete a checkpoint", dependencies=changing)
    def delete_checkpoint(checkpoint: CheckpointId) -> Response:
        site.worker.command("delete_checkpoint", checkpoint=checkpoint)
        return answer({"id": checkpoint, "done": "deleted"})


def _page(every: list[dict[str, Any]], after: str | None, limit: int) -> dict[str, Any]:
    ids = [one["id"] for one in every]
    if after is not None and after not in ids:
        raise Problem(
            404, "unknown_checkpoint", f"there is no checkpoint {after!r} to go on after; list from the start"
        )
    first = 0 if after is None else ids.index(after) + 1
    page = every[first : first + limit]
    return {"checkpoints": page, "next": page[-1]["id"] if first + limit < len(every) else None}


async def _pieces(file: BinaryIO) -> AsyncIterator[bytes]:
    with file:
        while piece := await anyio.to_thread.run_sync(file.read, PIECE_BYTES):
            yield piece
