"""What the dashboard's page is made of, as it is sent; and the numbers made for it alone."""

from __future__ import annotations

import gzip
import re
import sqlite3
from contextlib import closing
from importlib.resources import files
from pathlib import Path

import httpx
import numpy as np
import pytest
import tomllib

from service.access_cli import make_token
from service.api import page
from service.api.assets import FOR_EVER, every_asset
from service.api.curve import mean_at, running_mean
from service.api.error_history import ErrorHistory
from service.api.loss import loss_by_time
from service.api.page import _chosen
from service.api.sampled_curve import sampled_loss
from service.api.trajectory import Trajectory, main_plane
from service.records import pack
from service.storage import open_reader
from tests.helpers import ROOT, wait_until
from tests.service.api_support import Lab, interface

NAMES = sorted(every_asset())
LINES = 300


def test_every_file_is_part_of_the_package() -> None:
    built = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "service.dashboard" in built["packages"]
    patterns = built["package-data"]["service.dashboard"]
    for entry in files("service.dashboard").iterdir():
        if entry.is_file() and not entry.name.endswith(".py"):
            assert any(Path(entry.name).match(pattern) for pattern in patterns), entry.name


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_short_and_names_no_other_place(name: str) -> None:
    text = every_asset()[name].plain.decode()
    assert len(text.splitlines()) <= LINES
    assert set(re.findall(r"https?://[^\s\"')]*", text)) <= {"http://www.w3.org/2000/svg"}
    for imported in re.findall(r'from "\./([a-z_.]+)"', text):
        assert imported in NAMES
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text), (
        "text is set as text"
    )


def test_the_page_and_its_files_are_sent_once_and_kept(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.learn([None, 0.5, 0.4])
    with interface(tmp_path) as client:
        shown = client.get("/")
        policy = shown.headers["content-security-policy"]
        assert "'unsafe" not in policy
        assert "script-src 'self'" in policy
        assert not re.search(r"<style|\sstyle=|<script>|\son\w+=", shown.text), (
            "nothing inside that the policy would refuse"
        )
        paths = set(re.findall(r'(?:href|src)="(/assets/[^"]+)"', shown.text))
        assert {path.rpartition("/")[2] for path in paths} == set(NAMES)
        for path in paths:
            got = client.get(path, headers={"Accept-Encoding": "gzip"})
            assert got.headers["cache-control"] == FOR_EVER
            assert got.headers["content-encoding"] == "gzip"
            assert got.content == every_asset()[path.rpartition("/")[2]].plain
            plain = client.get(path, headers={"Accept-Encoding": "identity"})
            assert "content-encoding" not in plain.headers
            assert plain.content == got.content
            assert client.get(path, headers={"If-None-Match": got.headers["etag"]}).status_code == 304
        for wrong in (
            "/assets/0000000000000000/main.js",
            path.replace(".", "x."),
            path.rpartition("/")[0] + "/page.html",
        ):
            assert client.get(wrong).status_code in (404, 422)
    lab.journal.close()


def test_what_is_sent_compressed_is_the_file() -> None:
    for asset in every_asset().values():
        assert gzip.decompress(asset.packed) == asset.plain


def test_a_stream_s_name_is_text(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.learn([None, 0.5], "a.b-c_1")
    with interface(tmp_path) as client:
        assert 'data-stream="a.b-c_1"' in client.get("/").text
        assert client.get("/", params={"stream": "<b>"}).status_code == 422
    lab.journal.close()


def test_means_at_some_places_have_the_bits_of_the_running_means_there() -> None:
    every = np.random.default_rng(3).uniform(size=1000)
    every[::7] = np.nan
    at = np.array([0, 3, 4, 500, 999])
    for window in (1, 10, 2000):
        assert mean_at(every, at, window).tobytes() == running_mean(every, window)[at].tobytes()


def test_a_long_history_is_first_shown_from_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab(tmp_path)
    generator = np.random.default_rng(0)
    lab.learn([None, *generator.gamma(2.0, 0.2, 399).tolist()])

    def read() -> closing[sqlite3.Connection]:
        return closing(open_reader(tmp_path / "rjepa.db"))

    exact = loss_by_time(ErrorHistory(read).get("s1"), 10_000, 20)
    with read() as connection:
        sample = sampled_loss(connection, "s1", 399, 10, 20)
    truth = {point["seq"]: point for point in exact["points"]}
    ends = [point for point in sample["points"] if point["smoothed"] is not None]
    assert len(ends) == 10
    assert ends[-1]["seq"] == 399
    for point in ends:
        assert point == pytest.approx(truth[point["seq"]])
    assert (sample["sampled"], sample["count"]) == (200, 400)
    monkeypatch.setattr(page, "READ_AT_ONCE", 100)
    with interface(tmp_path) as client:
        assert "drawn from" in client.get("/").text
        wait_until(lambda: "drawn from" not in client.get("/").text, 20.0, "the whole to be read")
    lab.journal.close()


def test_the_plane_is_that_of_the_largest_variances() -> None:
    generator = np.random.default_rng(1)
    embeddings = generator.normal(size=(200, 6)) * np.array([5.0, 0.1, 3.0, 0.1, 1.0, 0.1]) + 7.0
    plane, shares = main_plane(embeddings)
    variances, vectors = np.linalg.eigh(np.cov(embeddings.T))
    np.testing.assert_allclose(shares, (variances / variances.sum())[:-3:-1], rtol=1e-9)
    np.testing.assert_allclose(plane.var(axis=0, ddof=1), variances[:-3:-1], rtol=1e-9)
    along = (embeddings - embeddings.mean(axis=0)) @ vectors[:, -1]
    assert abs(np.corrcoef(along, plane[:, 0])[0, 1]) == pytest.approx(1.0)
    turned, _ = main_plane(-embeddings)
    np.testing.assert_allclose(turned, -plane, atol=1e-9)
    for poor in (np.ones((5, 3)), np.arange(4.0)[:, None]):
        plane, shares = main_plane(poor)
        assert np.isfinite(plane).all()
        assert shares[1] == 0.0


def test_the_trajectory_is_told(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.claim("s1")
    generator = np.random.default_rng(2)
    with interface(tmp_path) as client:
        assert client.get("/v1/streams/nobody/trajectory").status_code == 404
        assert client.get("/v1/streams/s1/trajectory").json() == {"stream": "s1", "shares": [0.0, 0.0], "points": []}
        for seq in range(6):
            lab.learn([None if seq == 0 else 0.5], embedding=pack(generator.normal(size=4).astype(np.float32)))
        told = client.get("/v1/streams/s1/trajectory", params={"points": 4}).json()
        Trajectory.model_validate(told)
        assert [point["seq"] for point in told["points"]] == [2, 3, 4, 5]
        assert 0.5 < sum(told["shares"]) <= 1.0
        assert client.get("/v1/streams/s1/trajectory", params={"points": 1}).status_code == 422
    lab.journal.close()


def test_the_page_says_what_a_token_may(tmp_path: Path) -> None:
    tokens = {role: make_token(tmp_path / "access", role, role) for role in ("read", "admin")}
    lab = Lab(tmp_path)
    lab.learn([None, 0.5])
    with interface(tmp_path) as client:
        for role, may in (("read", "look"), ("admin", "change")):
            own = httpx.Headers({"Authorization": f"Bearer {tokens[role]}"})
            assert f'data-may="{may}"' in client.get("/", headers=own).text
            origin = str(client.base_url).rstrip("/")
            client.cookies.clear()
            client.post("/login", data={"token": tokens[role]}, headers={"Origin": origin})
            shown = client.get("/").text
            assert f'data-may="{may}"' in shown
            assert 'action="/logout"' in shown
            path = re.findall(r'src="(/assets/[^"]+main.js)"', shown)[0]
            assert client.get(path).status_code == 200
            client.cookies.clear()
            assert client.get(path).status_code == 401, "behind the login like everything"
    lab.journal.close()


def test_a_stream_is_shown_as_soon_as_there_is_one() -> None:
    """Else the page, told of a stream it does not show, would load itself again and again."""
    waiting, seen, older = ({"stream": name, "idle_s": idle} for name, idle in (("w", None), ("s", 1.0), ("o", 9.0)))
    assert _chosen([], None) is None
    assert _chosen([waiting], None) == "w"
    assert _chosen([waiting, older, seen], None) == "s"
    assert _chosen([waiting, older, seen], "o") == "o"
    assert _chosen([waiting, seen], "gone") == "s"
