"""``rjepa.Api``: the HTTP interface from Python, with typed answers and records as tables.

Every call of docs/http.md is a method. What is refused is raised as :class:`~clients.errors.ApiError` with status,
code and detail.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from clients import api_answers as answers
from clients import api_events, api_tables
from clients.api_calls import Calls
from clients.errors import ApiError, BadFixation
from clients.wire import PATCH_HEIGHT_PX, PATCH_WIDTH_PX

PAGE = 10_000
"""Records of one page of JSON, the most the interface gives."""
CHECKPOINTS_A_PAGE = 1000
PATCH_SHAPE = (PATCH_HEIGHT_PX, PATCH_WIDTH_PX, 3)
PATCHES_AT_ONCE = 64
"""Patches of one call, the most the interface takes."""


class Api:
    """The HTTP interface at ``url``; with tokens on, ``token`` is one that ``rjepa token add`` has made.

    Safe from several threads. Close it, or use it in a ``with`` block.
    """

    def __init__(self, url: str = "http://127.0.0.1:8000", *, token: str | None = None) -> None:
        self._calls = Calls(url, token)

    def close(self) -> None:
        """Close the connections."""
        self._calls.close()

    def __enter__(self) -> Api:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # The whole.

    def live(self) -> bool:
        """Whether the process turns."""
        return bool(self._calls.json("GET", "/livez")["live"])

    def ready(self) -> answers.Ready:
        """Raises :class:`ApiError` with status 503, its detail saying why, where it is not."""
        return answers.Ready.model_validate(self._calls.json("GET", "/readyz"))

    def metrics(self) -> str:
        """Text as Prometheus reads it."""
        return self._calls.whole("GET", "/metrics").text

    def model(self) -> answers.Model:
        """Architecture, parameter counts, device, whether it is learning."""
        return answers.Model.model_validate(self._calls.json("GET", "/v1/model"))

    def change_model(self, *, learning: bool | None = None, rates: dict[str, float] | None = None) -> answers.Model:
        """Pause or resume learning, change learning rates by name; what is None stays."""
        change = {"learning": learning, "rates": rates}
        wanted = {name: value for name, value in change.items() if value is not None}
        return answers.Model.model_validate(self._calls.json("PATCH", "/v1/model", body=wanted))

    def alarms(self) -> answers.Alarms:
        """The newest alarms of the whole, and those that are on and belong to no stream."""
        return answers.Alarms.model_validate(self._calls.json("GET", "/v1/streams", limit=1))

    def representation(self, stream: str | None = None) -> answers.Representation:
        """Whether it is learning: skill, learned skill, rank, retrieval, probe, balance."""
        told = self._calls.json("GET", "/v1/diagnostics/representation", stream=stream)
        return answers.Representation.model_validate(told)

    def gradient(self, stream: str | None = None) -> answers.Gradient:
        """Exactness and live fidelity of the gradient; it takes about a second."""
        return answers.Gradient.model_validate(self._calls.json("GET", "/v1/diagnostics/gradient", stream=stream))

    def embed(self, patch: NDArray[np.uint8] | bytes) -> NDArray[np.float64]:
        """The embedding (q,) of a patch from the zero state, learning nothing; of n patches (n, q).

        ``patch`` is uint8 (50, 50, 3) RGB, or a PNG or JPEG of that size as bytes, or n patches uint8 (n, 50, 50, 3),
        64 of which are embedded by the weights of one moment. Raises :class:`BadFixation` for another shape.
        """
        if isinstance(patch, bytes):
            return self._embedded(patch, "image/png" if patch.startswith(b"\x89PNG") else "image/jpeg")
        if patch.dtype != np.uint8 or patch.shape[-3:] != PATCH_SHAPE or patch.ndim not in (3, 4):
            wanted = f"uint8 {PATCH_SHAPE}"
            raise BadFixation(f"a patch is {wanted} RGB, this is {patch.dtype} {patch.shape}; rjepa.cut makes one")
        if patch.ndim == 3:
            return self._embedded(np.ascontiguousarray(patch).tobytes(), "application/octet-stream")
        found: list[list[float]] = []
        for first in range(0, len(patch), PATCHES_AT_ONCE):
            wishes = [_wish(each) for each in patch[first : first + PATCHES_AT_ONCE]]
            found += self._calls.json("POST", "/v1/embed", body={"patches": wishes})["embeddings"]
        return np.array(found, dtype=np.float64)

    def _embedded(self, data: bytes, media_type: str) -> NDArray[np.float64]:
        told = self._calls.whole("POST", "/v1/embed", content=data, headers={"Content-Type": media_type}).json()
        return np.array(told["embedding"], dtype=np.float64)

    # Streams.

    def streams(self) -> list[answers.Stream]:
        """All streams by name: cursor, lag, rate, last error, alarms."""
        found: list[answers.Stream] = []
        after: str | None = None
        while True:
            page = self._calls.json("GET", "/v1/streams", after=after)
            found += [answers.Stream.model_validate(each) for each in page["streams"]]
            after = page["next"]
            if after is None:
                return found

    def stream(self, name: str) -> answers.Stream:
        """One stream."""
        return answers.Stream.model_validate(self._calls.json("GET", _of(name)))

    def reset(self, name: str) -> answers.StreamDone:
        """Its next fixation begins a new sequence."""
        return answers.StreamDone.model_validate(self._calls.json("POST", f"{_of(name)}/reset", body={}))

    def delete(self, name: str) -> answers.StreamDone:
        """Forget a stream's state, patches and records; its numbering stays."""
        return answers.StreamDone.model_validate(self._calls.json("DELETE", _of(name)))

    def embedding(self, name: str) -> answers.Embedding:
        """What the learner last made of a stream, and of which fixation."""
        return answers.Embedding.model_validate(self._calls.json("GET", f"{_of(name)}/embedding"))

    def records(
        self,
        name: str,
        *,
        after: int = -1,
        limit: int | None = None,
        timeline: int | None = None,
        embeddings: bool = False,
        as_: api_tables.Kind | None = None,
    ) -> Any:
        """The records with seq above ``after``, ascending: all, or ``limit`` of them, as a table.

        ``as_`` is pandas, polars, pyarrow, or rows (a list of dictionaries); without it the first of the three that is
        installed. Raises :class:`~clients.errors.OptionError` where none is. One row is one fixation: gaze_x, gaze_y,
        trivial_copy_last and so on, and ``embedding`` as a list where asked for.
        """
        kind = api_tables.chosen(as_)
        path = f"{_of(name)}/records"
        asked = {"timeline": timeline, "embeddings": "true" if embeddings else None}
        if kind != "rows" and api_tables.installed("pyarrow"):
            headers = {"Accept": api_tables.ACCEPT_ARROW}
            with self._calls.opened(path, headers=headers, params=asked | {"after": after}) as response:
                if response.headers["content-type"].startswith(api_tables.ARROW_TYPE):
                    return api_tables.from_arrow(response, limit, kind)
        rows: list[dict[str, Any]] = []
        cursor: int | None = after
        while cursor is not None and (limit is None or len(rows) < limit):
            size = PAGE if limit is None else min(PAGE, limit - len(rows))
            page = self._calls.json("GET", path, **asked, after=cursor, limit=size)
            rows += [api_tables.flat(record) for record in page["records"]]
            cursor = page["next"]
        return api_tables.from_rows(rows, kind)

    def loss(
        self, name: str, *, points: int = 2000, window: int = 100, after: int = -1, until: int | None = None
    ) -> answers.Loss:
        """The loss curve by time over the fixations with ``after`` < seq <= ``until``, thinned to ``points``."""
        path = f"{_of(name)}/loss"
        told = self._calls.json("GET", path, points=points, window=window, after=after, until=until)
        return answers.Loss.model_validate(told)

    def loss_by_position(self, name: str, *, points: int = 2000) -> list[answers.LossPosition]:
        """The mean error at each position of the sequence."""
        told = self._calls.json("GET", f"{_of(name)}/loss", by="position", points=points)
        return [answers.LossPosition.model_validate(each) for each in told["points"]]

    def trajectory(self, name: str, *, points: int = 300) -> answers.Trajectory:
        """The newest ``points`` embeddings on their own first two principal components; empty before the second."""
        return answers.Trajectory.model_validate(self._calls.json("GET", f"{_of(name)}/trajectory", points=points))

    def patch(self, name: str, seq: int) -> NDArray[np.uint8]:
        """The stored patch of a fixation, uint8 (50, 50, 3) RGB."""
        import cv2

        png = self._calls.whole("GET", f"{_of(name)}/fixations/{seq}/patch").content
        bgr = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
        if bgr is None:
            raise ApiError(None, "damaged", f"the patch of fixation {seq} of {name!r} did not come as a picture")
        return np.ascontiguousarray(bgr[:, :, ::-1], dtype=np.uint8)

    def events(
        self, stream: str | None = None, *, after: int | None = None, patience_s: float = 600.0
    ) -> Iterator[api_events.Event]:
        """Records, checkpoints and alarms as they become durable; those of one stream and of the whole, or all.

        Begins now, or after the event with id ``after``. A cut connection or a restarted server is come back to where
        it was left, for as long as ``patience_s``: nothing is missing and nothing comes twice. Raises
        :class:`ApiError` where no server answers at the beginning, where it stayed away, or refuses to go on
        (``events_gone``, ``unknown_event``, ``unauthorized``).
        """
        return api_events.follow(self._calls, stream, after, patience_s)

    # Checkpoints.

    def checkpoints(self) -> list[answers.Checkpoint]:
        """All checkpoints, newest first."""
        found: list[answers.Checkpoint] = []
        after: str | None = None
        while True:
            page = self._calls.json("GET", "/v1/checkpoints", after=after, limit=CHECKPOINTS_A_PAGE)
            found += [answers.Checkpoint.model_validate(each) for each in page["checkpoints"]]
            after = page["next"]
            if after is None:
                return found

    def checkpoint(self, checkpoint: str) -> answers.Checkpoint:
        """One checkpoint."""
        return answers.Checkpoint.model_validate(self._calls.json("GET", _at(checkpoint)))

    def take_checkpoint(self, label: str | None = None, *, pinned: bool = False) -> answers.Checkpoint:
        """Take one now; returns once it is durable. A pinned one is deleted by hand only."""
        body = {"label": label, "pinned": pinned}
        return answers.Checkpoint.model_validate(self._calls.json("POST", "/v1/checkpoints", body=body))

    def download(self, checkpoint: str, path: str | os.PathLike[str]) -> Path:
        """Write parameters and states (safetensors) to ``path``, which is there whole and verified, or not at all."""
        target = Path(path)
        part = target.with_name(f".{target.name}.part")
        digest = hashlib.sha256()
        try:
            with self._calls.opened(f"{_at(checkpoint)}/download") as response, part.open("wb") as file:
                told = response.headers.get("etag", "").strip('"')
                for piece in response.iter_bytes():
                    digest.update(piece)
                    file.write(piece)
            if digest.hexdigest() != told:
                raise ApiError(None, "damaged", f"checkpoint {checkpoint} did not come as it is told; try again")
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return target

    def restore(self, checkpoint: str) -> answers.Checkpoint:
        """Go back to a checkpoint's parameters on a new timeline; returns the new checkpoint once that is durable."""
        told = self._calls.json("POST", f"{_at(checkpoint)}/restore", body={})
        return answers.Checkpoint.model_validate(told)

    def keep_checkpoint(self, checkpoint: str, *, pinned: bool, label: str | None = None) -> answers.Checkpoint:
        """Pin it or leave it to retention; ``label`` is its new one, None leaves it the one it has."""
        body = {"pinned": pinned, "label": label}
        return answers.Checkpoint.model_validate(self._calls.json("PATCH", _at(checkpoint), body=body))

    def delete_checkpoint(self, checkpoint: str) -> None:
        """Delete it for ever."""
        self._calls.json("DELETE", _at(checkpoint))


def _wish(patch: NDArray[np.uint8]) -> dict[str, Any]:
    data = base64.b64encode(np.ascontiguousarray(patch).tobytes()).decode("ascii")
    return {"encoding": "raw", "height": PATCH_HEIGHT_PX, "width": PATCH_WIDTH_PX, "data": data}


def _of(stream: str) -> str:
    return f"/v1/streams/{quote(stream, safe='')}"


def _at(checkpoint: str) -> str:
    return f"/v1/checkpoints/{quote(checkpoint, safe='')}"
