"""The interface with a real worker behind it."""

from __future__ import annotations

import base64
import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from safetensors.numpy import load

from service.api import diagnostics_shapes, shapes
from tests.helpers import PlainClient, Running, free_port, patches, start_rjepa, wait_until
from tests.service.api_support import interface

PATCHES = patches(40)


@dataclass
class Lab:
    """A worker, the interface on its directory, and the address fixations go to."""

    worker: Running
    http: httpx.Client
    ingest: str

    def get(self, path: str, **params: Any) -> Any:
        got = self.http.get(path, params=params)
        assert got.status_code == 200, got.text
        return got.json()

    def send(self, stream: str, count: int) -> int:
        """Stream ``count`` fixations and wait until they are learned; the first one's seq."""
        with PlainClient(self.ingest) as client:
            first = int(client.hello(stream)["next_seq"])
            for seq in range(first, first + count):
                client.fixation(stream, seq, PATCHES[seq % len(PATCHES)])
            client.until_learned(first + count - 1)
        return first


@pytest.fixture(scope="module")
def running(made_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("api")
    shutil.copytree(made_directory, folder / "data")
    ingest = f"tcp://127.0.0.1:{free_port()}"
    words = [f"--data-dir={folder / 'data'}", "--weights=random", f"--ingest={ingest}"]
    words.append(f"--publish=tcp://127.0.0.1:{free_port()}")
    with start_rjepa("worker", *words, logs=folder / "logs") as worker, interface(folder / "data") as http:

        def ready() -> bool:
            assert worker.alive(), worker.stderr()[-3000:]
            return http.get("/readyz").status_code == 200

        wait_until(ready, 60.0, "readyz")
        yield Lab(worker, http, ingest)


def test_what_is_streamed_can_be_read(running: Lab) -> None:
    first = running.send("read", 30)
    records = running.get("/v1/streams/read/records", embeddings=True)
    shapes.Records.model_validate(records)
    assert [record["seq"] for record in records["records"]] == list(range(first, first + 30))
    model = running.get("/v1/model")
    shapes.Model.model_validate(model)
    embedding = running.get("/v1/streams/read/embedding")
    assert embedding["seq"] == first + 29
    assert len(embedding["embedding"]) == model["embedding_size"]
    learned = [record for record in records["records"] if record["prediction_error"] is not None]
    loss = running.get("/v1/streams/read/loss")
    shapes.Loss.model_validate(loss)
    assert [point["error"] for point in loss["points"]] == [record["prediction_error"] for record in learned]
    stream = running.get("/v1/streams/read")
    shapes.Stream.model_validate(stream)
    assert stream["lag"] == 0
    assert stream["next_seq"] == 30
    assert stream["frame_deg_assumed"] == 30
    assert "rjepa_worker_up 1.0" in running.http.get("/metrics").text
    assert "read" in running.http.get("/").text


def test_whether_it_learns_is_told(running: Lab) -> None:
    running.send("told", 130)
    found = running.get("/v1/diagnostics/representation", stream="told")
    diagnostics_shapes.Representation.model_validate(found)
    assert (found["count"], found["learning"], found["verdict"]) == (129, False, "not learning yet")
    assert found["why"] == "too few fixations (129 of 2000)"
    assert found["effective_rank"] > 1.0
    assert np.shape(found["place_memory"]["known"]) == (6, 12)
    assert 0.0 < np.max(found["place_memory"]["known"]) <= 1.0
    every = running.get("/v1/diagnostics/representation")
    assert every["stream"] is None
    assert every["count"] >= 129
    gradient = running.get("/v1/diagnostics/gradient", stream="told")
    diagnostics_shapes.Gradient.model_validate(gradient)
    assert (gradient["streams"], gradient["rfp_exact"]) == (["told"], True)
    assert gradient["exactness"]["cosine"] == pytest.approx(1.0, abs=1e-9)
    assert gradient["live"]["cosine"] is not None
    assert running.get("/v1/streams/told")["diagnostics"] is None, "the first regular look is at 600"
    for what in ("representation", "gradient"):
        unknown = running.http.get(f"/v1/diagnostics/{what}", params={"stream": "nobody"})
        assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_stream")


def test_embedding_an_image_changes_nothing(running: Lab) -> None:
    running.send("embed", 3)
    before = running.get("/v1/streams/embed/embedding")
    png = cv2.imencode(".png", PATCHES[0][:, :, ::-1])[1].tobytes()
    answers = [
        running.http.post("/v1/embed", content=png, headers={"Content-Type": "image/png"}),
        running.http.post(
            "/v1/embed", content=PATCHES[0].tobytes(), headers={"Content-Type": "application/octet-stream"}
        ),
    ]
    assert [answer.status_code for answer in answers] == [200, 200], answers[0].text
    first, second = (answer.json()["embedding"] for answer in answers)
    assert len(first) == running.get("/v1/model")["embedding_size"]
    assert first == second, "the same picture, the same bits"
    assert np.isfinite(first).all()
    told = [
        {"encoding": "raw", "height": 50, "width": 50, "data": base64.b64encode(patch.tobytes()).decode()}
        for patch in PATCHES[:3]
    ]
    many = running.http.post("/v1/embed", json={"patches": told}).json()["embeddings"]
    assert many[0] == first
    assert len({tuple(one) for one in many}) == 3
    assert running.http.post("/v1/embed", json={"patches": told[::-1]}).json()["embeddings"] == many[::-1]
    assert running.get("/v1/streams/embed/embedding") == before


def test_pausing_rates_and_a_new_sequence(running: Lab) -> None:
    model = running.http.patch("/v1/model", json={"learning": False}).json()
    assert model["learning"] is False
    running.send("paused", 3)
    assert all(record["update_norm"] in (0.0, None) for record in running.get("/v1/streams/paused/records")["records"])
    name = next(name for name, rate in model["rates"].items() if rate)
    model = running.http.patch("/v1/model", json={"learning": True, "rates": {name: 1e-5}}).json()
    assert model["learning"] is True
    assert model["rates"][name] == 1e-5
    refused = running.http.patch("/v1/model", json={"rates": {"no_such": 1e-5}})
    assert refused.status_code == 422
    assert refused.headers["content-type"] == "application/problem+json"
    assert running.http.post("/v1/streams/paused/reset", json={}).json()["done"] == "reset"
    first = running.send("paused", 2)
    positions = [record["position"] for record in running.get("/v1/streams/paused/records")["records"]]
    assert positions[first] == 0


def test_checkpoints_are_taken_downloaded_gone_back_to_and_deleted(running: Lab) -> None:
    running.send("back", 5)
    got = running.http.post("/v1/checkpoints", json={"label": "before", "pinned": True})
    assert got.status_code == 201, got.text
    taken = got.json()
    shapes.Checkpoint.model_validate(taken)
    assert (taken["label"], taken["pinned"], taken["cursors"]["back"]) == ("before", True, 5)
    assert running.get(got.headers["location"]) == taken
    listed = running.get("/v1/checkpoints")
    shapes.Checkpoints.model_validate(listed)
    assert listed["checkpoints"][0] == taken
    file = running.http.get(f"/v1/checkpoints/{taken['id']}/download")
    assert len(file.content) == taken["size_bytes"]
    assert hashlib.sha256(file.content).hexdigest() == taken["sha256"]
    assert load(file.content)
    running.send("back", 5)
    got = running.http.post(f"/v1/checkpoints/{taken['id']}/restore", json={})
    assert got.status_code == 200, got.text
    new = got.json()
    assert (new["parent"], new["cursors"]["back"]) == (taken["id"], 10)
    assert new["timeline"] > taken["timeline"]
    running.send("back", 1)
    records = running.get("/v1/streams/back/records")["records"]
    assert [record["seq"] for record in records] == [0, 1, 2, 3, 4, 10]
    assert records[-1]["position"] == 0
    old = running.get("/v1/streams/back/records", timeline=taken["timeline"])["records"]
    assert [record["seq"] for record in old] == list(range(10))
    page = running.get("/v1/checkpoints", limit=1)
    assert (page["checkpoints"][0]["id"], page["next"]) == (new["id"], new["id"])
    assert running.get("/v1/checkpoints", limit=1, after=page["next"])["checkpoints"][0]["id"] == taken["id"]
    assert running.http.delete(f"/v1/checkpoints/{taken['id']}").json() == {"id": taken["id"], "done": "deleted"}
    for method, path in (("GET", ""), ("GET", "/download"), ("POST", "/restore"), ("DELETE", "")):
        gone = running.http.request(method, f"/v1/checkpoints/{taken['id']}{path}", json={})
        assert (gone.status_code, gone.json()["code"]) == (404, "unknown_checkpoint")


def test_a_stream_is_forgotten_and_its_place_on_the_wire_stays(running: Lab) -> None:
    running.send("gone", 4)
    assert running.http.delete("/v1/streams/gone").json()["done"] == "deleted"
    assert running.get("/v1/streams/gone/records")["records"] == []
    assert running.get("/v1/streams/gone/loss")["count"] == 0
    assert running.http.get("/v1/streams/gone/fixations/0/patch").status_code == 404
    assert running.http.get("/v1/streams/gone/embedding").status_code == 404
    assert running.get("/v1/streams/gone")["next_seq"] == 4
    assert running.send("gone", 2) == 4
    assert [record["seq"] for record in running.get("/v1/streams/gone/records")["records"]] == [4, 5]


def test_a_reader_without_pause_does_not_stop_learning(running: Lab) -> None:
    """Nothing about speed: every fixation is learned and every read answered while both go on."""
    import threading

    stop = threading.Event()
    wrong: list[int] = []
    done: list[int] = []

    def ask() -> None:
        with httpx.Client(base_url=running.http.base_url, timeout=60.0) as client:
            while not stop.is_set():
                for path in ("/v1/streams", "/v1/streams/busy/records?limit=10000&embeddings=true", "/"):
                    status = client.get(path).status_code
                    done.append(status)
                    if status not in (200, 404):
                        wrong.append(status)

    readers = [threading.Thread(target=ask) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        running.send("busy", 60)
    finally:
        stop.set()
        for reader in readers:
            reader.join(60)
    assert not wrong
    assert len(done) > 3
    assert running.get("/v1/streams/busy")["learned"] == 60
