"""`rjepa stream lsl`: an outlet is found, read by its description, streamed, lost and found again."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import pytest

from clients.errors import ClientError, OptionError, SourceError, UnitsUnknown
from clients.live_settings import LslSettings, PupilCoreSettings, load_live
from clients.lsl import Layout, layout_of
from clients.main import main
from tests.clients.capture import Viewer
from tests.clients.checkerboard import checkerboard, degrees_covered
from tests.clients.peer import Peer
from tests.helpers import start_rjepa, wait_until

pylsl = pytest.importorskip("pylsl", reason="pylsl is not installed: pip install 'rjepa[lsl]'")

RATE_HZ = 250


@contextmanager
def outlet(viewer: Viewer) -> Iterator[threading.Event]:
    """A stream as Pupil Capture's relay describes it, from when someone listens; the event is set at its end."""
    info = pylsl.StreamInfo("pupil_capture", "Gaze", 3, RATE_HZ, pylsl.cf_double64, "rjepa-test")
    channels = info.desc().append_child("channels")
    for label, unit in (("confidence", "normalized"), ("norm_pos_x", "normalized"), ("norm_pos_y", "normalized")):
        channel = channels.append_child("channel")
        channel.append_child_value("label", label)
        channel.append_child_value("eye", "both")
        channel.append_child_value("unit", unit)
        channel.append_child_value("coordinate_system", "world")
    stream, over, stop = pylsl.StreamOutlet(info, chunk_size=8), threading.Event(), threading.Event()

    def push() -> None:
        while not stop.is_set() and not stream.wait_for_consumers(0.1):
            pass
        begin_s, number = pylsl.local_clock(), 0
        while not stop.wait(0.01):
            while number / RATE_HZ <= pylsl.local_clock() - begin_s:
                x, y, confidence = viewer.at(viewer.epoch_s + number / RATE_HZ)
                stream.push_sample([confidence, x, y], begin_s + number / RATE_HZ)
                number += 1
            if number / RATE_HZ > viewer.length_s:
                over.set()

    thread = threading.Thread(target=push)
    thread.start()
    try:
        yield over
    finally:
        stop.set()
        thread.join()


def test_found_described_streamed_lost_and_found_again(lsl_file: Path, peer: Peer, tmp_path: Path) -> None:
    picture = tmp_path / "board.png"
    cv2.imwrite(str(picture), checkerboard(640, 480))
    first, second = Viewer(6, epoch_s=0.0), Viewer(4, epoch_s=0.0, seed=1)
    words = ["stream", "lsl", f"--video={picture}", "--px-per-degree=16", f"--ingest={peer.address}"]
    words += [f"--spool={tmp_path / 's'}", f"--summary={tmp_path / 'sum.json'}"]
    with start_rjepa(*words, logs=tmp_path / "logs", env={"LSLAPICFG": str(lsl_file)}) as running:
        with outlet(first) as over:
            assert over.wait(60), running.stderr()
            wait_until(lambda: len(peer.messages("lsl-Gaze")) == 6, 30, "the first six")
        wait_until(lambda: "is lost; looking for it" in running.stderr(), 60, "the loss to be said")
        with outlet(second) as over:
            assert over.wait(60), running.stderr()
            wait_until(lambda: len(peer.messages("lsl-Gaze")) == 10, 30, "the next four")
            assert running.terminate() == 0, running.stderr()
        said = running.stderr()
    assert "Traceback" not in said
    assert "gaze in channels 1 and 2 in norm, origin bottom left, confidence in channel 0" in said
    assert "250 Hz" in said
    told: dict[str, Any] = json.loads((tmp_path / "sum.json").read_text())
    assert (told["found"], told["acked"], told["dropped"], told["source"]["stream_lost"]) == (10, 10, {}, 1)
    messages = peer.messages("lsl-Gaze")
    for message, one in zip(messages, [*first.planted, *second.planted], strict=True):
        assert (message.gaze.x, 1 - message.gaze.y) == pytest.approx((one.x, one.y), abs=0.005)
        assert message.duration == pytest.approx(one.end_s - one.onset_s, abs=0.05)
        covered = degrees_covered(peer.patches["lsl-Gaze", message.seq])
        assert covered == pytest.approx((5.0, 5.0), rel=0.02)
    for viewer, part in ((first, messages[:6]), (second, messages[6:])):
        steps = [message.onset - part[0].onset for message in part]
        assert steps == pytest.approx([one.onset_s - viewer.planted[0].onset_s for one in viewer.planted], abs=0.02)


@pytest.mark.parametrize(
    ("labels", "units", "options", "expected"),
    [
        (["confidence", "norm_pos_x", "norm_pos_y"], ["", "", ""], {}, Layout(1, 2, 0, "norm", "bottom")),
        (["x", "y"], ["pixels", "pixels"], {}, Layout(0, 1, None, "px", "top")),
        (["Left Gaze X", "Left Gaze Y", "Right Gaze X"], ["px"] * 3, {}, Layout(0, 1, None, "px", "top")),
        (["a", "b", "c"], ["", "deg", ""], {"channels": "x=b,y=0"}, Layout(1, 0, None, "deg", "top")),
        (["x", "y"], ["?", "?"], {"gaze_unit": "norm", "origin": "bottom"}, Layout(0, 1, None, "norm", "bottom")),
    ],
)
def test_what_the_description_says(
    labels: list[str], units: list[str], options: dict[str, Any], expected: Layout
) -> None:
    assert layout_of(labels, units, LslSettings(**options)) == expected


@pytest.mark.parametrize(
    ("labels", "units", "options", "kind", "said"),
    [
        (["EEG1", "EEG2"], ["uV", "uV"], {}, SourceError, "eeg1, eeg2.*--channels"),
        (["x", "y"], ["", ""], {}, UnitsUnknown, "--gaze-unit"),
        (["x", "y"], ["px", "px"], {"channels": "x=x,y=z"}, SourceError, "no channel 'z'"),
        (["x", "y"], ["px", "px"], {"channels": "x=x"}, OptionError, "both x and y"),
        (["x", "y"], ["px", "px"], {"channels": "z=x"}, OptionError, "--channels 'z=x'"),
    ],
)
def test_a_description_that_says_too_little(
    labels: list[str], units: list[str], options: dict[str, Any], kind: type[ClientError], said: str
) -> None:
    with pytest.raises(kind, match=said):
        layout_of(labels, units, LslSettings(**options))


@pytest.mark.parametrize(
    ("more", "kind", "said"),
    [
        ([], OptionError, "LSL carries no video"),
        (["--video=camera:0"], UnitsUnknown, "--px-per-degree"),
        (["--video=/gone.mp4", "--px-per-degree=9"], SourceError, "not there"),
        (["--video=camera:0", "--px-per-degree=9", "--gaze-frame=9"], OptionError, "--gaze-frame"),
        (["--video=camera:0", "--px-per-degree=9", "--video-start=3"], OptionError, "a camera has no beginning"),
        (["--video=film.mp4", "--px-per-degree=9", "--camera-delay-ms=3"], OptionError, "nothing else has such"),
    ],
)
def test_what_is_refused(tmp_path: Path, more: list[str], kind: type[ClientError], said: str) -> None:
    with pytest.raises(kind, match=said):
        main(["lsl", f"--spool={tmp_path / 'spool'}", *more])
    assert not (tmp_path / "spool").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--video=film.mp4"], "--video would go unheard"),
        (["--address=127.0.0.1:1"], "--address would go unheard: the video is camera 2, the gaze lsl's"),
        (["--gaze=pupil-core", "--name=tobii", "--origin=top"], "--name, --origin would go unheard"),
    ],
)
def test_a_camera_hears_every_option_or_refuses_it(more: list[str], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        load_live("camera", ["2", "--px-per-degree=9", *more])
    heard = load_live("camera", ["2", "--gaze=pupil-core", "--address=127.0.0.1:1", "--camera-delay-ms=4"])
    assert isinstance(heard, PupilCoreSettings)
    assert (heard.video, heard.address, heard.camera_delay_ms) == ("camera:2", "127.0.0.1:1", 4.0)
