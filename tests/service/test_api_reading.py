from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from service.api import shapes
from service.errors import RequestRefused
from service.schema import TRIVIAL_ERRORS
from tests.helpers import patches
from tests.service.api_support import MODEL, Lab, interface, working


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    yield lab
    lab.journal.close()


@pytest.fixture
def client(lab: Lab) -> Iterator[httpx.Client]:
    with interface(lab.folder) as client:
        yield client


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """An interface for tests that only ask: stream s1 was claimed and has nothing."""
    lab = Lab(tmp_path_factory.mktemp("still"))
    lab.claim("s1")
    with interface(lab.folder) as client:
        yield client
    lab.journal.close()


def get(client: httpx.Client, path: str, **params: Any) -> Any:
    got = client.get(path, params=params)
    assert got.status_code == 200, got.text
    assert got.headers["content-type"] == "application/json"
    return got.json()


def refused(client: httpx.Client, path: str, status: int, **params: Any) -> dict[str, Any]:
    got = client.get(path, params=params)
    assert got.status_code == status, got.text
    assert got.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = got.json()
    assert {"type", "title", "status", "detail", "instance", "code"} <= set(body)
    assert body["status"] == status
    assert body["instance"] == path
    return body


def test_records_page_by_page_are_the_records(lab: Lab, client: httpx.Client) -> None:
    written = lab.learn([None, *np.linspace(1, 2, 11).tolist()])
    records, after = [], -1
    while after is not None:
        page = get(client, "/v1/streams/s1/records", after=after, limit=5)
        shapes.Records.model_validate(page)
        records += page["records"]
        after = page["next"]
    assert records == [record.json() for record in written]
    assert get(client, "/v1/streams/s1/records") == {"records": records, "next": None}
    assert get(client, "/v1/streams/s1/records", after=11) == {"records": [], "next": None}
    assert get(client, "/v1/streams/s1/records", limit=12)["next"] is None, "a full last page is the last"
    with_embeddings = get(client, "/v1/streams/s1/records", embeddings=True, after=10)["records"]
    assert with_embeddings[0]["embedding"] == [11.0] * 4
    shapes.Records.model_validate({"records": with_embeddings, "next": None})


def test_a_page_in_pieces_is_the_page(lab: Lab, client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.learn([None, *np.linspace(1, 2, 11).tolist()])
    asked = ({"embeddings": True}, {"limit": 8}, {"after": 3, "limit": 8}, {"after": 11}, {"limit": 9})
    whole = [get(client, "/v1/streams/s1/records", **one) for one in asked]
    assert [page["next"] for page in whole] == [None, 7, None, None, 8]
    for piece in (1, 4, 11):
        monkeypatch.setattr("service.api.forms.JsonPage.piece", piece)
        assert [get(client, "/v1/streams/s1/records", **one) for one in asked] == whole


def test_records_of_the_present_timeline_and_of_another(lab: Lab, client: httpx.Client) -> None:
    first = lab.learn([1.0] * 6)
    new = lab.restore(fork=first[3].id)
    lab.learn([2.0] * 2)
    present = get(client, "/v1/streams/s1/records")["records"]
    assert [record["seq"] for record in present] == [0, 1, 2, 3, 6, 7]
    assert [record["timeline"] for record in present] == [0, 0, 0, 0, new, new]
    old = get(client, "/v1/streams/s1/records", timeline=0)["records"]
    assert [record["seq"] for record in old] == [0, 1, 2, 3, 4, 5]
    assert refused(client, "/v1/streams/s1/records", 404, timeline=7)["code"] == "unknown_timeline"


def test_two_streams_do_not_mix(lab: Lab, client: httpx.Client) -> None:
    lab.learn([1.0] * 3, "a")
    lab.learn([5.0] * 2, "b")
    assert [r["stream"] for r in get(client, "/v1/streams/a/records")["records"]] == ["a"] * 3
    assert get(client, "/v1/streams/b/loss")["count"] == 2


def test_streams(lab: Lab, client: httpx.Client) -> None:
    lab.claim("s1", lost=range(2))
    lab.record("s1", range(2), [None, None], skipped="lost", embedding=None)
    lab.arrive("s1", 10, time_s=time.time() - 30)
    lab.record("s1", range(2, 8), [None, 1.0, 2.0, 3.0, 4.0, None])
    lab.record("s1", range(8, 9), [None], skipped="repeat", embedding=None)
    lab.learn([1.0], "z2")
    assert shapes.Streams.model_validate(get(client, "/v1/streams")).next is None
    first, second = get(client, "/v1/streams")["streams"]
    assert (first["stream"], second["stream"]) == ("s1", "z2")
    assert (first["next_seq"], first["learned_seq"], first["learned"], first["lag"]) == (12, 8, 6, 3)
    assert first["dropped"] == {"lost": 2, "repeat": 1}
    assert first["last_error"] == 4.0
    assert first["rate"] == round(10 / 60, 4)
    assert 25 < first["idle_s"] < 60
    assert (first["frame_deg_assumed"], first["epoch"], first["connected"]) == (10, 1, None)
    assert second["rate"] == 0
    assert get(client, "/v1/streams/s1") | {"idle_s": 0} == first | {"idle_s": 0}
    page = get(client, "/v1/streams", limit=1)
    assert ([one["stream"] for one in page["streams"]], page["next"]) == (["s1"], "s1")
    page = get(client, "/v1/streams", limit=1, after="s1")
    assert ([one["stream"] for one in page["streams"]], page["next"]) == (["z2"], None)


def test_alarms_are_told_at_their_stream(lab: Lab, client: httpx.Client) -> None:
    from service.journal import Alarm

    lab.claim("s1")
    lab.claim("s2")
    lab.journal.put_alarm(Alarm("data_lost", "seq 3 to 5", "s1"), 7.0)
    lab.journal.put_alarm(Alarm("checkpoint_failed", "no room"), 8.0)
    answer = get(client, "/v1/streams")
    assert [alarm["kind"] for alarm in answer["alarms"]] == ["checkpoint_failed", "data_lost"]
    assert answer["streams"][0]["alarms"] == [
        {"time": 7.0, "kind": "data_lost", "stream": "s1", "detail": "seq 3 to 5"}
    ]
    assert answer["streams"][1]["alarms"] == []


LOOK = {
    "entry": 650,
    "seq": 600,
    "time": 7.0,
    "count": 600,
    "learning": True,
    "verdict": "learning",
    "why": "skill +0.200 (+0.100 to +0.300): better than the best trivial predictor (carry_ar1)",
    "skill": {"value": 0.2, "low": 0.1, "high": 0.3},
    "learned_skill": {"value": None, "low": None, "high": None},
    "rank_ratio": 0.2,
    "live_cosine": 0.97,
    "alarms": [{"kind": "rank_lost", "detail": "effective rank 2.0", "since": 6.0}],
}


def test_the_last_look_is_told_as_word_and_metrics(lab: Lab, client: httpx.Client) -> None:
    lab.learn([None, 0.5], "s1")
    lab.learn([None, 0.5], "s2")
    lab.journal.put_meta("look/s1", json.dumps(LOOK))
    first, second = get(client, "/v1/streams")["streams"]
    shapes.Stream.model_validate(first)
    assert (first["diagnostics"], second["diagnostics"]) == (LOOK, None)
    page = client.get("/", params={"stream": "s1"}).text
    assert all(word in page for word in (">learning<", "+0.100 to +0.300", "rank_lost"))
    assert "Not learning yet" in client.get("/", params={"stream": "s2"}).text
    text = client.get("/metrics").text
    for line in (
        'rjepa_stream_learning{stream="s1"} 1.0',
        'rjepa_stream_skill{stream="s1"} 0.2',
        'rjepa_stream_skill_low{stream="s1"} 0.1',
        'rjepa_stream_skill_high{stream="s1"} 0.3',
        'rjepa_stream_rank_ratio{stream="s1"} 0.2',
        'rjepa_stream_live_cosine{stream="s1"} 0.97',
        'rjepa_stream_alarm{kind="rank_lost",stream="s1"} 1.0',
    ):
        assert line in text
    assert "rjepa_stream_learned_skill{" not in text, "what is not known is left out"
    assert 'rjepa_stream_skill{stream="s2"}' not in text
    lab.restore(1)
    assert get(client, "/v1/streams/s1")["diagnostics"] is None, "a look does not outlive a restore"


@pytest.mark.parametrize("what", ["representation", "gradient"])
def test_diagnostics_are_the_workers_word(lab: Lab, client: httpx.Client, what: str) -> None:
    path = f"/v1/diagnostics/{what}"
    assert refused(client, path, 503, stream="s1")["code"] == "worker_unreachable"
    assert refused(client, path, 422, stream=".hidden")["code"] == "invalid"
    with working(lab.folder) as desk, interface(lab.folder) as other:
        desk.result = {"diagnostics": {"stream": "s1"}}
        assert get(other, path, stream="s1") == {"stream": "s1"}
        assert desk.asked[-1] == {"op": "diagnostics", "what": what, "stream": "s1"}
        get(other, path)
        assert desk.asked[-1]["stream"] is None
        desk.refusal = RequestRefused(409, "diagnostics_off", "they are off")
        assert refused(other, path, 409)["code"] == "diagnostics_off"


def test_the_embedding_is_the_newest_and_a_repeat_moves_its_seq(lab: Lab, client: httpx.Client) -> None:
    lab.claim("s1")
    assert refused(client, "/v1/streams/s1/embedding", 404)["code"] == "no_embedding"
    lab.learn([1.0] * 3)
    answer = get(client, "/v1/streams/s1/embedding")
    assert answer == {"stream": "s1", "seq": 2, "embedding": [2.0] * 4}
    shapes.Embedding.model_validate(answer)
    lab.learn([None], skipped="repeat", embedding=None)
    assert get(client, "/v1/streams/s1/embedding") == answer | {"seq": 3}
    lab.learn([None], skipped="refused", embedding=None)
    assert get(client, "/v1/streams/s1/embedding") == answer | {"seq": 3}


def test_the_loss_curve(lab: Lab, client: httpx.Client) -> None:
    errors = np.random.default_rng(0).uniform(1, 2, 300)
    errors[77] = 9.0
    lab.learn([None, *errors.tolist()])
    whole = get(client, "/v1/streams/s1/loss", window=10)
    shapes.Loss.model_validate(whole)
    assert whole["count"] == 300
    assert whole["trivial_name"] == TRIVIAL_ERRORS[0]
    assert [point["seq"] for point in whole["points"]] == list(range(1, 301))
    assert [point["error"] for point in whole["points"]] == errors.tolist()
    smoothed = [np.mean(errors[max(0, i - 9) : i + 1]) for i in range(300)]
    np.testing.assert_allclose([point["smoothed"] for point in whole["points"]], smoothed, rtol=1e-12)
    np.testing.assert_allclose([point["trivial"] for point in whole["points"]], errors + 0.1, rtol=1e-12)
    np.testing.assert_allclose(
        [point["trivial_smoothed"] for point in whole["points"]], np.array(smoothed) + 0.1, rtol=1e-9
    )
    thin = get(client, "/v1/streams/s1/loss", points=20, window=10)
    assert (thin["count"], thin["newest"]) == (300, 300)
    assert len(thin["points"]) <= 20
    assert 9.0 in [point["error"] for point in thin["points"]]
    by_seq = {point["seq"]: point for point in whole["points"]}
    assert all(by_seq[point["seq"]] == point for point in thin["points"]), "a point of the thin curve is a real one"
    cut = get(client, "/v1/streams/s1/loss", window=10, after=100, until=200)
    assert cut["points"] == [by_seq[seq] for seq in range(101, 201)]
    assert (cut["count"], cut["newest"]) == (100, 200)


def test_the_loss_curve_follows_what_is_learned_restored_and_deleted(lab: Lab, client: httpx.Client) -> None:
    from service.journal import Forget, Turn

    def curve() -> list[tuple[int, float]]:
        return [(point["seq"], point["error"]) for point in get(client, "/v1/streams/s1/loss")["points"]]

    lab.claim("s1")
    nothing = {"points": [], "count": 0, "newest": None, "window": 100, "trivial_name": None}
    assert get(client, "/v1/streams/s1/loss") == nothing
    first = lab.learn([1.0, 2.0, 3.0])
    assert curve() == [(0, 1.0), (1, 2.0), (2, 3.0)]
    lab.learn([4.0])
    assert curve() == [(0, 1.0), (1, 2.0), (2, 3.0), (3, 4.0)]
    lab.restore(fork=first[1].id)
    lab.learn([5.0])
    assert curve() == [(0, 1.0), (1, 2.0), (4, 5.0)]
    command = lab.journal.append_command("delete", "s1", {}, 1.0)
    lab.journal.put_turn(Turn(command, [Forget(command, "s1")]), 1.0)
    assert curve() == []
    lab.learn([6.0])
    assert curve() == [(5, 6.0)]


def test_the_loss_by_position(lab: Lab, client: httpx.Client) -> None:
    lab.learn([None, 1.0, 2.0, 3.0, 4.0, 10.0, 3.0, 4.0])
    answer = get(client, "/v1/streams/s1/loss", by="position")
    shapes.Loss.model_validate(answer)
    assert answer == {
        "points": [
            {"position": 0, "mean": 10.0, "count": 1},
            {"position": 1, "mean": 2.0, "count": 2},
            {"position": 2, "mean": 3.0, "count": 2},
            {"position": 3, "mean": 3.0, "count": 1},
            {"position": 4, "mean": 4.0, "count": 1},
        ],
        "count": 7,
    }


@pytest.mark.parametrize("encoding", ["raw", "png", "jpeg"])
def test_the_patch_comes_as_png_whatever_came_in(lab: Lab, client: httpx.Client, encoding: str) -> None:
    lab.claim("s1")
    lab.arrive("s1", 1, encoding=encoding)
    got = client.get("/v1/streams/s1/fixations/0/patch")
    assert got.headers["content-type"] == "image/png"
    picture = cv2.imdecode(np.frombuffer(got.content, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
    assert picture.shape == (50, 50, 3)
    sent = patches(1, seed=0)[0]
    if encoding == "jpeg":
        sent = cv2.imdecode(cv2.imencode(".jpg", sent[:, :, ::-1])[1], cv2.IMREAD_COLOR)[:, :, ::-1]
    assert (picture == sent).all()


def test_a_patch_that_is_not_there_is_told_apart(lab: Lab, client: httpx.Client) -> None:
    lab.claim("s1", lost=range(1))
    assert refused(client, "/v1/streams/s1/fixations/0/patch", 404)["code"] == "patch_dropped"
    assert refused(client, "/v1/streams/s1/fixations/9/patch", 404)["code"] == "unknown_fixation"


@pytest.mark.parametrize("path", ["", "/embedding", "/records", "/loss", "/fixations/0/patch"])
def test_an_unknown_stream_is_404_everywhere(still: httpx.Client, path: str) -> None:
    assert refused(still, f"/v1/streams/nobody{path}", 404)["code"] == "unknown_stream"


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("/records", {"limit": 10_001}),
        ("/records", {"limit": 0}),
        ("/records", {"after": -2}),
        ("/records", {"after": 2**70}),
        ("/records", {"after": "x"}),
        ("/records", {"timeline": 2**70}),
        ("/loss", {"points": 1}),
        ("/loss", {"window": 0}),
        ("/loss", {"by": "colour"}),
        ("/fixations/-1/patch", {}),
        ("/fixations/99999999999999999999/patch", {}),
        ("/fixations/nan/patch", {}),
    ],
)
def test_a_wrong_parameter_is_named(still: httpx.Client, path: str, params: dict[str, Any]) -> None:
    body = refused(still, f"/v1/streams/s1{path}", 422, **params)
    assert body["code"] == "invalid"
    assert (next(iter(params)) if params else "seq") in body["detail"]


@pytest.mark.parametrize("name", [".hidden", "a" * 65, "a b", "a%00b", "..%2f..%2fetc", "%c3%a9"])
def test_ids_are_checked(still: httpx.Client, name: str) -> None:
    got = still.get(f"/v1/streams/{name}/records")
    assert got.status_code in (404, 422)
    assert got.headers["content-type"] == "application/problem+json"


def test_the_model_as_it_was_last_written_down_and_as_it_is_now(lab: Lab, client: httpx.Client) -> None:
    written = get(client, "/v1/model")
    assert written == MODEL | {"worker": "unreachable"}
    shapes.Model.model_validate(written)
    with working(lab.folder, model=MODEL | {"learning": False}), interface(lab.folder) as other:
        assert get(other, "/v1/model") == MODEL | {"worker": "reachable", "learning": False}


def test_before_there_is_a_database_every_read_says_so(tmp_path: Path) -> None:
    with interface(tmp_path / "nothing") as client:
        assert get(client, "/livez") == {"live": True}
        for path in ("/v1/streams", "/v1/streams/s1", "/v1/streams/s1/loss", "/v1/model", "/readyz"):
            assert refused(client, path, 503)["code"] in ("directory_refused", "worker_unreachable")
        assert client.get("/").status_code == 200
        assert "rjepa_worker_up 0.0" in client.get("/metrics").text
    assert not (tmp_path / "nothing").exists()


def test_a_damaged_database_is_a_problem_without_a_trace(tmp_path: Path) -> None:
    (tmp_path / "rjepa.db").write_bytes(b"no database at all" * 100)
    with interface(tmp_path) as client:
        body = refused(client, "/v1/streams", 503)
    assert body["code"] == "storage_failed"
    assert "Traceback" not in str(body)


def test_reading_leaves_the_write_ahead_log_alone(lab: Lab, client: httpx.Client) -> None:
    lab.learn([1.0] * 5)
    log = lab.folder / "rjepa.db-wal"
    before = log.read_bytes()
    for path in ("/v1/streams", "/v1/streams/s1/records", "/v1/streams/s1/loss", "/", "/metrics"):
        assert client.get(path).status_code == 200
    assert log.read_bytes() == before
    lab.journal.put_meta("after", "1")


def test_metrics_tell_the_streams(lab: Lab, client: httpx.Client) -> None:
    lab.learn([None, 0.5, 0.25])
    lab.learn([None], skipped="refused", embedding=None)
    text = client.get("/metrics").text
    for line in (
        'rjepa_stream_learned_total{stream="s1"} 3.0',
        'rjepa_stream_skipped_total{reason="refused",stream="s1"} 1.0',
        'rjepa_stream_last_error{stream="s1"} 0.25',
        'rjepa_stream_lag{stream="s1"} 0.0',
        "rjepa_worker_up 0.0",
        'rjepa_alarms{kind="data_lost"} 0.0',  # so that the first one is a rise
    ):
        assert line in text
    with working(lab.folder, waiting=3), interface(lab.folder) as other:
        text = other.get("/metrics").text
    assert "rjepa_worker_up 1.0" in text
    assert "rjepa_fixations_waiting 3.0" in text
    assert 'rjepa_stream_connected{stream="s1"} 1.0' in text


def test_the_openapi_document_names_every_call(still: httpx.Client) -> None:
    client = still
    document = client.get("/openapi.json").json()
    calls = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    assert {
        "GET /livez",
        "GET /readyz",
        "GET /metrics",
        "GET /v1/model",
        "PATCH /v1/model",
        "GET /v1/streams",
        "GET /v1/streams/{stream}",
        "POST /v1/streams/{stream}/reset",
        "DELETE /v1/streams/{stream}",
        "GET /v1/streams/{stream}/embedding",
        "GET /v1/streams/{stream}/records",
        "GET /v1/streams/{stream}/loss",
        "GET /v1/streams/{stream}/trajectory",
        "GET /v1/streams/{stream}/fixations/{seq}/patch",
        "POST /v1/embed",
        "GET /v1/diagnostics/representation",
        "GET /v1/diagnostics/gradient",
        "GET /v1/events",
        "GET /v1/checkpoints",
        "POST /v1/checkpoints",
        "GET /v1/checkpoints/{checkpoint}",
        "GET /v1/checkpoints/{checkpoint}/download",
        "POST /v1/checkpoints/{checkpoint}/restore",
        "PATCH /v1/checkpoints/{checkpoint}",
        "DELETE /v1/checkpoints/{checkpoint}",
    } == calls
    schemas = document["components"]["schemas"]
    assert "ProblemBody" in schemas
    page = client.get("/docs").text
    assert all(path in page for path in document["paths"])


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for one in value.values():
            yield from references(one)
    elif isinstance(value, list):
        for one in value:
            yield from references(one)


def test_every_reference_of_the_openapi_document_leads_somewhere(still: httpx.Client) -> None:
    document = still.get("/openapi.json").json()
    found = set(references(document))
    assert found
    for reference in found:
        at: Any = document
        for part in reference.removeprefix("#/").split("/"):
            assert part in at, reference
            at = at[part]
