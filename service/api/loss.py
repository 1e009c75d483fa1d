"""``GET /v1/streams/{s}/loss``: the loss curve, thinned here so that a screen can draw a million fixations."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Query
from starlette.responses import Response

from clients.wire import MAX_SEQ
from service.api.curve import Errors, best_trivial, by_position, mean_at, thin
from service.api.error_history import ErrorHistory
from service.api.shapes import Loss
from service.api.site import Site, StreamId, answer, check_stream
from service.schema import TRIVIAL_ERRORS

WINDOW = 100
MAX_POINTS = 10_000
POINT = ("seq", "time", "error", "smoothed", "trivial", "trivial_smoothed")


def loss_by_time(errors: Errors, points: int, window: int, after: int = -1, until: int = MAX_SEQ) -> dict[str, Any]:
    """The curve over the fixations with ``after`` < seq <= ``until``; smoothing also looks at what came before them."""
    first, last = np.searchsorted(errors.seq, [after, until], side="right")
    shown = errors.part(int(first), int(last))
    best = best_trivial(shown)
    kept = thin(shown.error, points) + int(first)
    trivial = errors.trivial[:, best] if best is not None else np.full(len(errors), np.nan)
    columns = (
        errors.seq[kept],
        errors.time_s[kept],
        errors.error[kept],
        mean_at(errors.error, kept, window),
        trivial[kept],
        mean_at(trivial, kept, window),
    )
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return {
        "points": [{name: _known(value) for name, value in zip(POINT, row, strict=True)} for row in rows],
        "count": len(shown),
        "newest": int(shown.seq[-1]) if len(shown) else None,
        "window": window,
        "trivial_name": None if best is None else TRIVIAL_ERRORS[best],
    }


def router(site: Site, history: ErrorHistory) -> APIRouter:
    """The routes of this module."""
    routes = APIRouter(tags=["streams"])

    @routes.get(
        "/v1/streams/{stream}/loss",
        response_model=Loss,
        response_model_exclude_none=True,
        summary="The loss curve, decimated, smoothed, with the best trivial predictor's",
        dependencies=[site.queue("heavy")],
    )
    def get_loss(
        stream: StreamId,
        points: Annotated[int, Query(ge=2, le=MAX_POINTS, description="at most so many points")] = 2000,
        window: Annotated[int, Query(ge=1, le=1_000_000, description="fixations of the running mean")] = WINDOW,
        by: Annotated[Literal["time", "position"], Query(description="position: mean error by position")] = "time",
        after: Annotated[int, Query(ge=-1, le=MAX_SEQ, description="fixations above this seq")] = -1,
        until: Annotated[int, Query(ge=0, le=MAX_SEQ, description="fixations up to this seq")] = MAX_SEQ,
    ) -> Response:
        """Every fixation that has a prediction error counts. At most two points a bin, of `points` / 2 bins of equally
        many fixations: its least and its greatest error. By position: the first `points` positions of a sequence."""
        with site.read() as connection:
            check_stream(connection, stream)
        errors = history.get(stream)
        if by == "time":
            return answer(loss_by_time(errors, points, window, after, until))
        first, last = np.searchsorted(errors.seq, [after, until], side="right")
        shown = errors.part(int(first), int(last))
        rows = [{"position": p, "mean": mean, "count": count} for p, mean, count in by_position(shown, points)]
        return answer({"points": rows, "count": len(shown)})

    return routes


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
