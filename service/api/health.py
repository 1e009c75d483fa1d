"""``GET /livez`` and ``GET /readyz``: for a supervisor, without a token."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from service.api.problems import Problem
from service.api.shapes import Live, Ready
from service.api.site import Site, answer
from service.errors import ServiceError


def router(site: Site) -> APIRouter:
    """The routes of this module."""
    routes = APIRouter(tags=["health"])

    @routes.get("/livez", response_model=Live, summary="The process turns")
    async def livez() -> Response:
        return answer({"live": True})

    @routes.get(
        "/readyz", response_model=Ready, summary="The journal is writable, recovery finished, the lag under its limit"
    )
    def readyz() -> Response:
        limit = site.settings.lag_limit
        try:
            status = site.worker.status()
        except ServiceError as error:
            raise Problem(503, error.code, str(error), {"Retry-After": "2"}) from None
        reasons = []
        if status["recovering"]:
            reasons.append(f"recovering: {status['recovered']} of {status['to_recover']} entries learned again")
        if status["storage"]:
            reasons.append(f"the journal can't be written: {status['storage']}")
        if status["waiting"] > limit:
            reasons.append(f"{status['waiting']} fixations wait to be learned, the limit is {limit}")
        if reasons:
            raise Problem(503, "not_ready", "; ".join(reasons), {"Retry-After": "2"}, {"reasons": reasons})
        return answer({"ready": True, "waiting": status["waiting"], "lag_limit": limit})

    return routes
