"""``GET /v1/streams/{s}/trajectory``: the newest embeddings as a path in the plane of their two main components.

Computed here: the embeddings themselves would be a megabyte for what a screen shows in a few kilobytes.
"""

from __future__ import annotations

import sqlite3
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from service.api.site import Site, StreamId, answer, check_stream
from service.history import lineage, where_lineage
from service.records import numbers

MAX_POINTS = 1000
DECIMALS = 4


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TrajectoryPoint(_Shape):
    """One fixation's embedding."""

    seq: int = Field(description="number of the fixation in its stream", examples=[318])
    error: float | None = Field(
        description="prediction error, in the model's distance; null where there was no prediction", examples=[0.41]
    )
    first: float = Field(description="along the first principal component, in units of the embedding", examples=[-1.25])
    second: float = Field(description="along the second, in the same units", examples=[0.5])


class Trajectory(_Shape):
    """The newest embeddings as a path in a plane. It can't show what happens in the other dimensions: see `shares`."""

    stream: str = Field(description="whose", examples=["s1"])
    shares: list[float] = Field(
        description="of the variance of these embeddings, along each of the two components", examples=[[0.31, 0.12]]
    )
    points: list[TrajectoryPoint] = Field(description="ascending by seq")


def main_plane(embeddings: NDArray[np.float64]) -> tuple[NDArray[np.float64], list[float]]:
    """(n, 2) coordinates of (n, q) embeddings on their first two principal components, and their shares of variance.

    A component has no sign of its own: each is turned so that its largest loading is positive. Where there is no
    variance (or a single dimension) what is missing is 0.
    """
    centred = embeddings - embeddings.mean(axis=0)
    _, lengths, directions = np.linalg.svd(centred, full_matrices=False)
    total = float((lengths**2).sum())
    plane, shares = np.zeros((len(embeddings), 2)), [0.0, 0.0]
    for i in range(min(2, len(lengths)) if total > 0 else 0):
        direction = directions[i]
        plane[:, i] = centred @ (direction * np.sign(direction[np.argmax(np.abs(direction))]))
        shares[i] = float(lengths[i] ** 2) / total
    return plane, shares


def router(site: Site) -> APIRouter:
    """The routes of this module."""
    routes = APIRouter(tags=["streams"])

    @routes.get(
        "/v1/streams/{stream}/trajectory",
        response_model=Trajectory,
        summary="The newest embeddings on their first two principal components",
        dependencies=[site.queue("heavy")],
    )
    def get_trajectory(
        stream: StreamId,
        points: Annotated[int, Query(ge=2, le=MAX_POINTS, description="of so many newest fixations")] = 300,
    ) -> Response:
        """The components are those of the fixations shown: two answers share no axes. Empty before the second one."""
        with site.read() as connection:
            check_stream(connection, stream)
            rows = _newest(connection, stream, points)
        return answer(_trajectory(stream, rows))

    return routes


def _newest(connection: sqlite3.Connection, stream: str, points: int) -> list[tuple[int, float | None, bytes]]:
    """(seq, prediction error, embedding), ascending by seq."""
    condition, values = where_lineage(lineage(connection))
    cursor = connection.execute(
        "SELECT seq, prediction_error, embedding FROM records"
        f" WHERE stream = ? AND embedding IS NOT NULL AND {condition} ORDER BY seq DESC LIMIT ?",
        (stream, *values, points),
    )
    cursor.row_factory = None
    return cursor.fetchall()[::-1]


def _trajectory(stream: str, rows: list[tuple[int, float | None, bytes]]) -> dict[str, Any]:
    if len(rows) < 2:
        return {"stream": stream, "shares": [0.0, 0.0], "points": []}
    plane, shares = main_plane(np.stack([numbers(row[2]) for row in rows]).astype(np.float64))
    points = [
        {"seq": seq, "error": error, "first": round(x, DECIMALS), "second": round(y, DECIMALS)}
        for (seq, error, _), (x, y) in zip(rows, plane.tolist(), strict=True)
    ]
    return {"stream": stream, "shares": shares, "points": points}
