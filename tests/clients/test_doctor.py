"""`rjepa doctor`: what it says of a worker, of Capture, of cameras and streams, and where there is nothing at all."""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

import clients.doctor
from clients.camera_probe import CamerasSeen
from clients.capture_probe import ask_capture
from clients.connection import read_keys
from clients.doctor import EXTRAS
from clients.doctor_finding import Finding, State
from clients.glimpse import GAP_PX, HEIGHT_PX, Glimpse
from clients.sender import Sender
from clients.worker_probe import ask_worker
from rjepa import main
from service.access import Access
from tests.clients.fake_capture import capturing, world
from tests.clients.peer import Peer
from tests.helpers import ROOT, free_port, patches
from tests.service.test_access import Door, folder, stranger

__all__ = ["folder"]

LIMIT_S = 20.0
"""What a probe may take in a test: no answer that is expected waits for it."""


@pytest.fixture(autouse=True)
def _no_lsl(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking for streams waits for them: only the test about them does."""
    if "lsl" not in request.node.name:
        monkeypatch.setitem(sys.modules, "pylsl", None)


def doctor(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    """Exit code and output; nothing is looked for but what ``words`` name."""
    nowhere = [f"--capture=127.0.0.1:{free_port()}", "--cameras=0", f"--within={LIMIT_S}"]
    code = main(["doctor", *nowhere, *map(str, words)])
    return code, capsys.readouterr().out


def line(told: str, what: str) -> str:
    """The line about ``what``, with the remedy below it."""
    found = re.search(rf"(?m)^{re.escape(what)} .*(?:\n +-> .*)?", told)
    assert found, told
    return found.group()


def test_a_worker_that_takes_fixations(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = doctor(capsys, f"--ingest={peer.address}", "--stream=anna-1")
    assert code == 0
    assert re.search(r"ok +tcp://\S+ answers in \d+\.\d ms", line(told, "worker"))
    assert "stream anna-1 may be written" in told
    assert not peer.hellos, "no stream was claimed"


def test_who_writes_a_stream_goes_on_writing_it(peer: Peer, tmp_path: Path) -> None:
    with Sender(peer.address, "anna-1", spool_dir=tmp_path) as sender:
        assert sender.wait_welcome(20) == 0
        assert ask_worker(peer.address, None, "anna-1", LIMIT_S).exit_code == 0
        sender.offer(onset_s=0.0, duration_s=0.2, gaze=(0.5, 0.5), patch=patches(1)[0])
        assert sender.flush(timeout_s=20)
    assert len(peer.messages("anna-1")) == 1


def test_nothing_there_at_all(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    picture = tmp_path / "seen.png"
    code, told = doctor(capsys, f"--ingest=tcp://127.0.0.1:{free_port()}", f"--picture={picture}")
    assert code == 4
    assert "nothing listens" in line(told, "worker")
    assert "rjepa serve" in line(told, "worker")
    assert "absent   nothing listens" in line(told, "pupil capture")
    assert "--capture HOST:PORT" in line(told, "pupil capture")
    assert "--video FILE" in line(told, "picture")
    assert not picture.exists()


@pytest.mark.parametrize("address", ["127.0.0.1:5555", "tcp://127.0.0.1", "tcp://127.0.0.1:99999"])
def test_an_address_that_is_none(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = doctor(capsys, f"--ingest={address}")
    assert code == 4
    assert "tcp://127.0.0.1:5555" in line(told, "worker")


def test_something_else_listens(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        seen = ask_worker(f"tcp://127.0.0.1:{silent.getsockname()[1]}", None, "s1", 0.5)
    assert seen.exit_code == 4
    assert "does not answer" in seen.finding.told


def test_keys_and_what_is_wrong_with_them(folder: Path, tmp_path: Path) -> None:
    """Each of the four ways a key can be wrong is told apart from the others, and from no worker."""
    access = Access.load(folder)
    assert access.curve is not None
    right = json.loads((folder.parent / "lab.key.json").read_text())
    told = {}
    with Door(access) as door:
        for name, key in {
            "none": None,
            "unlisted": stranger(access.curve.public),
            "another worker's": right | {"server": stranger("")["public"]},
        }.items():
            told[name] = ask_worker(door.address, _keys(tmp_path, key), "demo-1", LIMIT_S)
    with Door(Access.load(tmp_path / "no-keys")) as door:
        told["not asked for"] = ask_worker(door.address, _keys(tmp_path, right), "demo-1", LIMIT_S)
    assert {name: seen.exit_code for name, seen in told.items()} == dict.fromkeys(told, 2), told
    assert "asks for keys" in told["none"].finding.told
    assert "--pair FILE" in str(told["none"].finding.remedy)
    assert "does not know this computer's key" in told["unlisted"].finding.told
    assert "has another key" in told["another worker's"].finding.told
    assert "takes no keys" in told["not asked for"].finding.told


def _keys(tmp_path: Path, key: dict[str, str] | None) -> object:
    if key is None:
        return None
    path = tmp_path / "key.json"
    path.write_text(json.dumps(key))
    return read_keys(path)


def test_a_pair_file_that_is_none(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code = main(["doctor", f"--pair={tmp_path / 'none.json'}"])
    assert code == 2
    assert "none.json" in capsys.readouterr().err


def test_capture_with_everything_on(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    picture = tmp_path / "seen.png"
    with capturing() as capture:
        _, told = doctor(capsys, f"--capture={capture.where}", f"--picture={picture}")
        offset_s = capture.offset_s
    assert "version 3.5.1" in line(told, "pupil capture")
    clock = re.search(r"([+-]\d+\.\d+) s from ours, to (\d+\.\d+) ms", line(told, "  its clock"))
    assert clock
    assert abs(float(clock[1]) - offset_s) < float(clock[2]) / 1000 + 0.001, "within the error it states"
    gaze = re.search(r"(\d+) Hz, 100% with confidence", line(told, "  its gaze"))
    assert gaze
    assert float(gaze[1]) > 100
    frames = line(told, "  its frames")
    rate = re.search(r"1280 x 720 px, (\d+\.\d) frames/s, jpeg; 13\.9 px/deg", frames)
    assert rate
    assert 10 < float(rate[1]) < 35
    assert "Pupil Capture, 1280 x 720 px, gaze at 0.250, 0.250; the patch is 70 x 70 px" in line(told, "picture")
    assert set(capture.asked) == {"v", "t", "SUB_PORT"}, "never T, and nothing is set"
    seen = cv2.imread(str(picture))
    shown = round(1280 * HEIGHT_PX / 720)
    assert seen.shape == (HEIGHT_PX, shown + GAP_PX + HEIGHT_PX, 3)
    patch = seen[:, shown + GAP_PX :]
    assert np.abs(patch.reshape(-1, 3).mean(axis=0) - (220, 40, 40)).max() < 6, "blue: norm_pos counts from the bottom"


@pytest.mark.parametrize(
    ("options", "what", "told", "remedy"),
    [
        ({"gaze": False}, "  its gaze", "none comes", "calibrated"),
        ({"confidence": 0.1}, "  its gaze", "0% with confidence", "calibrate again"),
        ({"frames": False}, "  its frames", "none comes", "Frame Publisher"),
        ({"width": 320, "height": 200}, "  its frames", "px/deg unknown", "--px-per-degree"),
    ],
)
def test_capture_with_something_amiss(options: dict[str, object], what: str, told: str, remedy: str) -> None:
    with capturing(**options) as capture:
        seen = ask_capture(capture.where, None, 1.0)
    (finding,) = [one for one in seen.findings if one.what == what]
    assert finding.state is State.TROUBLE
    assert told in finding.told
    assert remedy in str(finding.remedy)


def test_a_capture_that_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        seen = ask_capture(f"127.0.0.1:{silent.getsockname()[1]}", None, 0.3)
    assert [one.state for one in seen.findings] == [State.ABSENT]


def test_a_probe_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A driver that never returns costs its time limit, and the rest is told all the same."""
    let_go = threading.Event()
    monkeypatch.setattr(clients.doctor, "GRACE_S", 0.0)
    monkeypatch.setattr(clients.doctor, "ask_cameras", lambda count: let_go.wait(60) and CamerasSeen([]))
    try:
        code, told = doctor(capsys, "--within=0.5")
    finally:
        let_go.set()
    assert code == 4
    assert "not done in time" in line(told, "camera")
    assert line(told, "extras")


@pytest.mark.parametrize("coded", ["bgr", "gray", "yuv"])
def test_frames_of_other_formats(coded: str) -> None:
    with capturing(width=320, height=200, coded=coded, norm_pos=(0.75, 0.25)) as capture:
        seen = ask_capture(capture.where, (8.0, 8.0), 1.0)
    assert seen.glimpse is not None
    assert (seen.glimpse.x, seen.glimpse.y) == (0.75, 0.75)
    expected = world(320, 200)
    if coded == "gray":
        expected = cv2.cvtColor(cv2.cvtColor(expected, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    assert np.abs(seen.glimpse.bgr.astype(int) - expected).max() <= (3 if coded == "yuv" else 0)


def test_frames_that_are_none_are_said_and_the_rest_is_told() -> None:
    with capturing(width=320, height=200, coded="bgr") as capture:
        capture._raw = capture._raw[:-1]
        seen = ask_capture(capture.where, (8.0, 8.0), 1.0)
    assert [one.state for one in seen.findings] == [State.OK, State.OK, State.OK, State.TROUBLE]
    assert "are no bgr of 320 x 200" in seen.findings[-1].told
    assert seen.glimpse is None


def test_a_picture_of_a_video(video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "seen.png"
    _, told = doctor(capsys, f"--video={video}", "--gaze=0.5,0.25", "--px-per-degree=8", f"--picture={picture}")
    assert "gaze at 0.500, 0.250; the patch is 40 x 40 px of it" in line(told, "picture")
    assert cv2.imread(str(picture)).shape == (HEIGHT_PX, 640 + GAP_PX + HEIGHT_PX, 3)
    _, told = doctor(capsys, f"--video={video}", f"--picture={picture}")
    assert "px/deg is unknown" in line(told, "picture")
    assert "--px-per-degree X" in line(told, "picture")
    assert cv2.imread(str(picture)).shape == (HEIGHT_PX, 640, 3), "the frame and the gaze point alone"


def test_the_mark_is_where_the_gaze_is() -> None:
    """The square on the frame has the patch's 5 degrees, around the gaze."""
    grey = np.full((480, 640, 3), 90, np.uint8)
    drawn = Glimpse("a frame", grey, 0.25, 0.5, (20.0, 10.0)).drawn()[:, :640]
    marked = np.argwhere((drawn == (0, 230, 255)).all(axis=2))
    low, high = marked.min(axis=0), marked.max(axis=0)
    assert np.abs(low - (240 - 25, 160 - 50)).max() <= 2
    assert np.abs(high - (240 + 25, 160 + 50)).max() <= 2


def test_a_picture_that_can_not_be_written(video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, told = doctor(capsys, f"--video={video}", f"--picture={tmp_path / 'no' / 'folder.png'}")
    assert "can't be written" in line(told, "picture")


@pytest.mark.parametrize("gaze", ["0.5", "0.5,1.5", "a,b", "0.5,nan"])
def test_a_gaze_that_is_none(gaze: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", f"--gaze={gaze}"]) == 2
    assert "0.5,0.25" in capsys.readouterr().err


def test_a_missing_extra_is_said_with_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    _, told = doctor(capsys)
    assert "pylsl is not installed" in line(told, "lsl")
    assert "pip install 'rjepa[lsl]'" in line(told, "lsl")


def test_every_extra_named_is_one() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text()
    assert all(re.search(rf"(?m)^{extra} = \[", pyproject) for extra in EXTRAS)


def test_a_finding_is_one_line_and_its_remedy() -> None:
    told = Finding("camera", State.ABSENT, "none", "plug one in").lines()
    assert [part.split() for part in told.splitlines()] == [["camera", "absent", "none"], ["->", "plug", "one", "in"]]


def test_a_gaze_stream_of_lsl(lsl_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pylsl = pytest.importorskip("pylsl", reason="pylsl is not installed: pip install 'rjepa[lsl]'")
    name = f"rjepa-test-{free_port()}"
    outlet = pylsl.StreamOutlet(pylsl.StreamInfo(name, "Gaze", 3, 120.0, "double64", name))
    _, told = doctor(capsys, "--within=8")
    del outlet
    found = re.search(rf"lsl +ok +{name} \(Gaze\) of \S+ 3 channels, 120 Hz; its clock is ([+-]\d+\.\d+) s", told)
    assert found, told
    assert abs(float(found[1])) < 0.1, "it is this computer's own"
