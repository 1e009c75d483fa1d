"""`rjepa stream pupil-core` against a Capture on real sockets: each planted fixation once, on its own frame."""

from __future__ import annotations

import json
import math
import re
import signal
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

from clients import wire
from clients.errors import OptionError, SourceError, UnitsUnknown
from clients.main import main
from clients.sender import Sender
from tests.clients.capture import BRIGHTER, DARKEST, RATE_HZ, STEPS, Capture, Viewer
from tests.clients.checkerboard import PX_PER_DEGREE, checkerboard, degrees_covered, network_camera
from tests.clients.peer import Peer
from tests.helpers import start_rjepa, wait_until

PX = "--px-per-degree=8"


@pytest.fixture
def capture() -> Iterator[Capture]:
    running = Capture(speed=4.0)
    yield running
    running.close()


def words(capture: Capture, peer: Peer, folder: Path, *more: str, kind: str = "pupil-core") -> list[str]:
    where = [capture.address] if kind == "pupil-core" else []
    into = [f"--ingest={peer.address}", f"--spool={folder / 'spool'}", f"--summary={folder / 'summary.json'}"]
    return [kind, *where, *into, *more]


def summary_of(folder: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return told


def check(messages: list[wire.FixationMessage], viewers: list[Viewer], peer: Peer, within_s: float = 0.025) -> None:
    """Each planted fixation is there once, in order, where it was, and its patch is of its own frame."""
    planted = [(viewer, one) for viewer in viewers for one in viewer.planted]
    assert [message.seq for message in messages] == list(range(len(planted)))
    for message, (viewer, one) in zip(messages, planted, strict=True):
        assert message.onset == pytest.approx(one.onset_s, abs=within_s)
        assert message.onset + message.duration == pytest.approx(one.end_s, abs=0.05)
        assert (message.gaze.x, 1 - message.gaze.y) == pytest.approx((one.x, one.y), abs=0.005)
        seen = (float(peer.patches[message.stream, message.seq].mean()) - DARKEST) / BRIGHTER
        shown = (message.onset - viewer.epoch_s) * RATE_HZ
        assert abs((seen - shown + STEPS / 2) % STEPS - STEPS / 2) <= 1.0, "frame and gaze within one frame period"


@pytest.mark.parametrize("frame_format", ["jpeg", "yuv"])
def test_every_planted_fixation_once_on_its_own_frame(
    capture: Capture, peer: Peer, tmp_path: Path, frame_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    viewer = Viewer(10, epoch_s=-1234.5)
    capture.start(viewer)
    more = (PX, f"--frame-format={frame_format}", f"--end={viewer.length_s - 0.1}")
    assert main(words(capture, peer, tmp_path, *more)) == 0
    check(peer.messages("pupil-core"), [viewer], peer)
    told = summary_of(tmp_path)
    assert (told["found"], told["sent"], told["acked"], told["dropped"]) == (10, 10, 10, {})
    assert told["source"]["gaze_other_eye"] > 0
    assert told["source"]["gaze_out_of_order"] > 0
    assert told["source"]["frames_other_format"] == 3
    assert "time_back" not in told["source"], "put in order before anything looks at them"
    assert "T" not in capture.asked, "it would break Capture's own fixation detector"
    said = capsys.readouterr().err
    assert re.search(r"clock [-+]\d+\.\d{3} s from ours, to \d+\.\d\d ms", said)
    assert "320 x 240 px, 40.0 x 30.0 degrees (8.0 x 8.0 px/deg)" in said


def test_their_fixations_count_once(capture: Capture, peer: Peer, tmp_path: Path) -> None:
    viewer = Viewer(10, epoch_s=50.25)
    capture.start(viewer)
    assert main(words(capture, peer, tmp_path, PX, "--detector=tracker", f"--end={viewer.length_s}")) == 0
    check(peer.messages("pupil-core"), [viewer], peer)
    assert summary_of(tmp_path)["found"] == 10


def test_capture_begins_anew_on_other_ports_and_another_clock(capture: Capture, peer: Peer, tmp_path: Path) -> None:
    first, second = Viewer(5, epoch_s=3000.0), Viewer(5, epoch_s=-7.0, seed=1)
    capture.start(first)
    with start_rjepa("stream", *words(capture, peer, tmp_path, PX), logs=tmp_path / "logs") as running:
        assert capture.done.wait(60), running.stderr()
        wait_until(lambda: len(peer.messages("pupil-core")) == 5, 30, "the first five")
        capture.stop()
        wait_until(lambda: "no answer from Pupil Remote" in running.stderr(), 30, "the loss to be said")
        capture.start(second)
        assert capture.done.wait(60), running.stderr()
        wait_until(lambda: len(peer.messages("pupil-core")) == 10, 30, "the second five")
        running.process.send_signal(signal.SIGTERM)
        assert running.wait(20) == 0, running.stderr()
        assert "Traceback" not in running.stderr()
    check(peer.messages("pupil-core"), [first, second], peer)
    told = summary_of(tmp_path)
    assert told["source"]["source_restarted"] == 1
    assert told["source"]["capture_away"] == 1
    assert capture.asked.count("notify.frame_publishing.set_format") == 2


def test_intrinsics_by_notification_and_by_file(capture: Capture, peer: Peer, tmp_path: Path) -> None:
    """The focal length decides: 100 px x 2 tan(0.5 deg) are 1.7455 px in a degree."""
    camera = {"resolution": [320, 240], "camera_matrix": [[400.0, 0, 160], [0, 380.0, 120], [0, 0, 1]]}
    viewer = Viewer(6, epoch_s=0.0)
    capture.more.append([b"notify.intrinsics", msgpack.packb({"subject": "intrinsics", **camera})])
    capture.start(viewer)
    assert main(words(capture, peer, tmp_path, f"--end={viewer.length_s - 0.1}")) == 0
    (first, *_) = peer.messages("pupil-core")
    assert first.frame_deg is not None
    expected = (320 / (400 * 0.0174537), 240 / (380 * 0.0174537))
    assert (first.frame_deg.width, first.frame_deg.height) == pytest.approx(expected, rel=1e-4)
    capture.stop()
    file = tmp_path / "world.intrinsics"
    file.write_bytes(msgpack.packb({"version": 1, "(320, 240)": camera | {"cam_type": "radial"}}))
    capture.start(Viewer(3, epoch_s=100.0))
    assert main(words(capture, peer, tmp_path, "--stream=by-file", f"--intrinsics={file}", "--end=1.9")) == 0
    again = peer.messages("by-file")[0].frame_deg
    assert again == first.frame_deg


def test_a_patch_covers_five_degrees_through_capture_and_through_a_camera(
    capture: Capture, peer: Peer, tmp_path: Path
) -> None:
    """By the intrinsics that Capture's file tells, and by pixels per degree on a camera in the network."""
    focal = PX_PER_DEGREE / (2 * math.tan(math.radians(0.5)))
    matrix = [[focal, 0, 160], [0, focal, 120], [0, 0, 1]]
    file = tmp_path / "world.intrinsics"
    file.write_bytes(msgpack.packb({"version": 1, "(320, 240)": {"resolution": [320, 240], "camera_matrix": matrix}}))
    capture.picture = checkerboard(320, 240)
    capture.start(Viewer(4, epoch_s=0.0))
    for coded in ("jpeg", "yuv"):
        more = (f"--intrinsics={file}", f"--frame-format={coded}", f"--stream={coded}", "--end=2.4")
        assert main(words(capture, peer, tmp_path, *more)) == 0
        capture.stop()
        capture.start(Viewer(4, epoch_s=0.0))
    capture.stop()
    capture.speed = 0.5
    capture.start(Viewer(40, epoch_s=0.0))
    with network_camera(checkerboard(640, 480, 20.0)) as address:
        more = (address, "--gaze=pupil-core", f"--address={capture.address}", "--px-per-degree=20", "--stream=camera")
        capture.wanted = {b"gaze."}
        with start_rjepa(
            "stream", *words(capture, peer, tmp_path, *more, kind="camera"), logs=tmp_path / "logs"
        ) as running:
            wait_until(lambda: len(peer.messages("camera")) >= 2, 60, "two fixations on the camera's frames")
            assert running.terminate() == 0, running.stderr()
    for stream, least in (("jpeg", 4), ("yuv", 4), ("camera", 2)):
        messages = peer.messages(stream)
        assert len(messages) >= least
        for message in messages:
            covered = degrees_covered(peer.patches[stream, message.seq])
            assert covered == pytest.approx((5.0, 5.0), rel=0.02), stream


def test_without_any_the_error_says_what_to_measure(
    capture: Capture, peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clients.live.UNITS_WAIT_S", 0.3)
    capture.start(Viewer(40, epoch_s=0.0))
    with pytest.raises(UnitsUnknown, match=r"320 x 240 px.*--px-per-degree.*--intrinsics.*--fov"):
        main(words(capture, peer, tmp_path))


def test_bad_messages_are_counted_and_survived(capture: Capture, peer: Peer, tmp_path: Path) -> None:
    frame = {"topic": "frame.world", "width": 320, "height": 240, "timestamp": 0.9, "format": "jpeg"}
    capture.more = [
        [b"gaze.3d.01.", b"\xc1"],
        [b"gaze.3d.01.", msgpack.packb({"timestamp": float("nan"), "norm_pos": [0.5, 0.5], "confidence": 1.0})],
        [b"gaze.3d.01.", msgpack.packb({"timestamp": 1.0, "norm_pos": None, "confidence": 1.0})],
        [b"frame.world", msgpack.packb(frame | {"format": "png"}), b"1234"],
        [b"frame.world", msgpack.packb(frame)],
    ]
    viewer = Viewer(5, epoch_s=0.0)
    capture.start(viewer)
    assert main(words(capture, peer, tmp_path, PX, f"--end={viewer.length_s - 0.1}")) == 0
    check(peer.messages("pupil-core"), [viewer], peer)
    assert summary_of(tmp_path)["source"]["message_not_understood"] == 5


def test_a_full_spool_drops_counts_and_says_so(
    capture: Capture, peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With no worker there and room for almost nothing, the tracker is read on and what finds no room has no seq."""
    monkeypatch.setattr("clients.sender.QUEUE", 4)
    monkeypatch.setattr("clients.session.Sender", partial(Sender, capacity=3))
    peer.answering = False
    viewer = Viewer(20, epoch_s=0.0)
    capture.start(viewer)
    back = threading.Timer(0, lambda: (capture.done.wait(60), setattr(peer, "answering", True)))
    back.start()
    assert main(words(capture, peer, tmp_path, PX, f"--end={viewer.length_s - 0.1}")) == 0
    back.join()
    told = summary_of(tmp_path)
    assert told["found"] == 20
    assert told["dropped"]["spool_full"] == 20 - told["sent"] > 5
    messages = peer.messages("pupil-core")
    assert [message.seq for message in messages] == list(range(told["sent"])), "no seq was spent on the dropped"
    said = capsys.readouterr().err
    assert (said.count("ALARM spool_full"), said.count("spool_full is over")) == (1, 0), "it was full to the end"


@pytest.mark.parametrize(
    ("more", "kind", "said"),
    [
        (["--speed=2"], OptionError, "its own pace"),
        (["--video=camera:"], OptionError, "which camera"),
        (["--video=camera:0"], UnitsUnknown, "--px-per-degree"),
        (["--fov=171"], OptionError, "at most 170"),
        (["--screen-mm=300x200"], OptionError, "belong together"),
        (["--intrinsics=/gone"], SourceError, "can't be read"),
        (["--frame-format=png"], OptionError, "--frame-format"),
    ],
)
def test_what_is_refused(tmp_path: Path, more: list[str], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        main(["pupil-core", f"--spool={tmp_path / 'spool'}", *more])
    assert not (tmp_path / "spool").exists(), "refused before anything was made"


def test_something_else_at_the_port(peer: Peer, tmp_path: Path) -> None:
    context: zmq.Context[Any] = zmq.Context()
    stranger = context.socket(zmq.REP)
    port = stranger.bind_to_random_port("tcp://127.0.0.1")

    def answer() -> None:
        stranger.recv_multipart()
        stranger.send(b"hello?")

    thread = threading.Thread(target=answer)
    thread.start()
    with pytest.raises(SourceError, match=r"hello.*Pupil Remote's port"):
        main(["pupil-core", f"127.0.0.1:{port}", PX, f"--ingest={peer.address}", f"--spool={tmp_path / 's'}"])
    thread.join()
    stranger.close()
    context.term()


def test_addresses() -> None:
    from clients.pupil_remote import parse_address

    assert parse_address("lab-3") == "lab-3:50020"
    assert parse_address("tcp://10.0.0.2:1234") == "10.0.0.2:1234"
    for wrong in ("", "a:b", "a:0", "a:70000", "a:²"):
        with pytest.raises(OptionError):
            parse_address(wrong)


@pytest.mark.soak
def test_ten_minutes_at_ten_times_the_pace(peer: Peer, tmp_path: Path) -> None:
    """1,500 planted fixations in one minute: each arrives once, on its own frame."""
    capture = Capture(speed=10.0)
    try:
        viewer = Viewer(1498, epoch_s=-10_000.0)
        capture.start(viewer)
        assert main(words(capture, peer, tmp_path, PX, f"--end={viewer.length_s - 0.1}")) == 0
        check(peer.messages("pupil-core"), [viewer], peer)
        assert summary_of(tmp_path)["dropped"] == {}
    finally:
        capture.close()
