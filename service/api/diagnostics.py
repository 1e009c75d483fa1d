"""``/v1/diagnostics/...``: whether learning is real, told by the worker from what it holds now."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from service.access import NAME_PATTERN
from service.api.diagnostics_shapes import Gradient, Representation
from service.api.site import Site, answer

Asked = Annotated[
    str | None,
    Query(pattern=NAME_PATTERN, description="one stream; without it, all in journal order", examples=["s1"]),
]


def router(site: Site) -> APIRouter:
    """The routes of this module."""
    routes = APIRouter(tags=["diagnostics"])

    @routes.get(
        "/v1/diagnostics/representation",
        response_model=Representation,
        summary="Is it learning: skill, learned skill, rank, retrieval, probe, balance, the place memory's picture",
        dependencies=[site.queue("diagnostics")],
    )
    def representation(stream: Asked = None) -> Response:
        """Windows are kept of the 16 streams fed last. 409 with code diagnostics_off where they are switched off."""
        return answer(site.worker.diagnostics("representation", stream))

    @routes.get(
        "/v1/diagnostics/gradient",
        response_model=Gradient,
        summary="Exactness and live fidelity of recurrent forward propagation against back-propagation through time",
        dependencies=[site.queue("diagnostics")],
    )
    def gradient(stream: Asked = None) -> Response:
        """About a second a stream, beside learning; without `stream`, of the four streams fed last."""
        return answer(site.worker.diagnostics("gradient", stream))

    return routes
