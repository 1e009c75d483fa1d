"""``GET`` and ``PATCH /v1/model``: what learns, and whether and how fast it does."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, Depends
from starlette.responses import Response

from service.api.problems import Problem
from service.api.security import json_only
from service.api.shapes import Model, ModelChange
from service.api.site import Site, answer, done_or_accepted
from service.errors import DirectoryRefused


def describe(site: Site) -> dict[str, Any]:
    """The model as the worker tells it now or, while it can't be asked, as it last wrote it down.

    Raises :class:`~service.errors.DirectoryRefused` when there is neither.
    """
    status = site.worker.status_or_none()
    if status is not None:
        return dict(status["model"]) | {"worker": "reachable"}
    with site.read() as connection:
        row = connection.execute("SELECT value FROM meta WHERE key = 'model'").fetchone()
    if row is None:
        raise DirectoryRefused("no model has been made yet; the worker makes it when it starts")
    return dict(json.loads(row[0])) | {"worker": "unreachable"}


def router(site: Site) -> APIRouter:
    """The routes of this module."""
    routes = APIRouter(tags=["model"])

    @routes.get("/v1/model", response_model=Model, summary="Architecture, parameters, device, learning on or off")
    def get_model() -> Response:
        return answer(describe(site))

    @routes.patch(
        "/v1/model",
        response_model=Model,
        summary="Pause or resume learning; change learning rates",
        responses={202: {"model": Model, "description": "durable, carried out when its turn comes: the model as yet"}},
        dependencies=[Depends(json_only), site.queue("command")],
    )
    def change_model(change: ModelChange) -> Response:
        """Entries of the journal, rates first: answered once durable, applied in journal order."""
        if change.learning is None and not change.rates:
            raise Problem(422, "invalid", "nothing to change: give `learning` or `rates`")
        results = []
        if change.rates:
            results.append(site.worker.command("rates", rates=change.rates))
        if change.learning is not None:
            results.append(site.worker.command("resume" if change.learning else "pause"))
        return answer(describe(site), done_or_accepted(*results))

    return routes
