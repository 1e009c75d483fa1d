"""`rjepa stream` as it is typed: what it sends, says, writes and ends with."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from clients.errors import ClientError, OptionError, SourceError, StreamConflict, UnitsUnknown, WorkerUnreachable
from clients.main import main
from clients.spool import Spool
from tests.clients.conftest import write_video
from tests.clients.peer import Peer
from tests.helpers import free_port, run_rjepa, start_rjepa, wait_until

Stream = Callable[..., dict[str, Any]]
PX = "--px-per-degree=16"


@pytest.fixture
def stream(peer: Peer, tmp_path: Path) -> Stream:
    """Run `rjepa stream WORDS` to its end with exit code 0; the summary it wrote."""

    def run(*words: str | Path) -> dict[str, Any]:
        summary = tmp_path / "summary.json"
        common = [f"--ingest={peer.address}", f"--spool={tmp_path / 'spool'}", f"--summary={summary}", "--speed=max"]
        assert main([*map(str, words), *common]) == 0
        written: dict[str, Any] = json.loads(summary.read_text())
        return written

    return run


def all_sent(summary: dict[str, Any], found: int, **dropped: int) -> None:
    sent = found - sum(dropped.values())
    assert {key: summary[key] for key in ("found", "sent", "acked", "learned")} == {
        "found": found,
        "sent": sent,
        "acked": sent,
        "learned": sent,
    }
    assert summary["dropped"] == dropped


def test_a_recording(stream: Stream, peer: Peer, video: Path, gaze: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = stream("recording", "--video", video, "--gaze", gaze, PX)
    all_sent(summary, 9, off_frame=1)
    messages = peer.messages("viewer")
    assert [message.seq for message in messages] == list(range(8))
    assert [message.onset for message in messages] == pytest.approx(
        [100.0 + 0.4 * n for n in (0, 1, 2, 3, 4, 6, 7, 8)], abs=0.04
    )
    places = [(message.gaze.x * 320, message.gaze.y * 240) for message in messages]
    expected = [(60, 60), (200, 80), (100, 200), (280, 180), (160, 120), (40, 160), (240, 40), (120, 100)]
    np.testing.assert_allclose(places, expected, atol=1.0)
    first, *others = messages
    assert first.sequence is not None
    assert (first.sequence.id, first.sequence.start) == ("viewer", True)
    assert all(message.sequence is None for message in others)
    assert first.frame_deg is not None
    assert (first.frame_deg.width, first.frame_deg.height) == (20.0, 15.0)
    assert first.gaze_deg is not None
    assert first.gaze_deg.x == pytest.approx(first.gaze.x * 20.0)
    padded = [message.patch.padded for message in messages]
    assert padded[0] is None
    assert padded[3] == pytest.approx(0.0, abs=0.01) or padded[3] is None
    assert summary["padded"] == sum(share is not None for share in padded) > 0
    said = capsys.readouterr().err
    assert "time from 'timestamp' in s" in said
    assert "250 Hz, detector ivt" in said
    assert "dropped 1 off_frame" in said


def test_the_patch_is_of_the_frame_at_the_onset(stream: Stream, peer: Peer, tmp_path: Path) -> None:
    """Each frame has its own brightness: 25 frames/s, gaze begins 0.5 s into the video."""
    video = write_video(
        tmp_path / "steps.avi", [np.full((240, 320, 3), 40 + 10 * (n % 20), np.uint8) for n in range(75)]
    )
    lines = ["t_s,x_px,y_px"]
    for at in range(600):
        x = 80 + 40 * (at // 150)
        lines.append(f"{7 + at * 0.004:.3f},{x + 0.01 * (at % 2)},120")
    gaze = tmp_path / "steps.csv"
    gaze.write_text("\n".join(lines))
    all_sent(stream("recording", "--video", video, "--gaze", gaze, PX, "--video-start=6.5"), 4)
    for message in peer.messages("steps"):
        seen = round((peer.patches["steps", message.seq].mean() - 40) / 10)
        shown = (message.onset - 6.5) * 25
        assert abs((seen - shown + 10) % 20 - 10) <= 0.501, "the nearest frame"


def test_again_is_already_learned(
    stream: Stream, peer: Peer, video: Path, gaze: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("recording", gaze, "--video", video, PX)
    first = stream(*words)
    capsys.readouterr()
    assert stream(*words) == first
    said = capsys.readouterr().err
    assert "already learned" in said
    assert "--stream NAME" in said
    assert len(peer.messages("viewer")) == 8
    all_sent(stream(*words, "--stream=viewer-2"), 9, off_frame=1)
    assert len(peer.messages("viewer-2")) == 8


def test_part_first_then_the_whole(
    stream: Stream, peer: Peer, video: Path, gaze: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped and begun again: what is there is passed over, the rest follows."""
    words = ("recording", gaze, "--video", video, PX, "--stream=viewer")
    stream(*words, "--end=1.58")
    before = len(peer.messages("viewer"))
    assert 0 < before < 8
    stream(*words)
    assert len(peer.messages("viewer")) == 8
    assert f"{before} of them were already there" in capsys.readouterr().err


def test_another_recording_into_the_same_stream(stream: Stream, video: Path, gaze: Path) -> None:
    stream("recording", gaze, "--video", video, PX)
    with pytest.raises(StreamConflict, match="--stream") as refused:
        stream("recording", gaze, "--video", video, "--px-per-degree=15")
    assert refused.value.exit_code == 1


def test_a_part_has_a_stream_of_its_own(stream: Stream, peer: Peer, video: Path, gaze: Path) -> None:
    stream("recording", gaze, "--video", video, PX, "--start=0.8", "--end=2")
    messages = peer.messages("viewer-0.8-2")
    assert [round(message.onset, 1) for message in messages] == [100.8, 101.2], "the third is cut off by the end"


def test_nan_and_lost_gaze_is_survived(
    stream: Stream, peer: Peer, video: Path, gaze: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = gaze.read_text().splitlines()
    lines[120:125] = [line.split(",")[0] + ",nan,nan,0.9" for line in lines[120:125]]
    lines[230] = "nan,100,200,0.9"
    lines[240] = "90.0,100,200,0.9"
    lines[340:345] = [line.split(",")[0] + ",0,0,0" for line in lines[340:345]]
    gaze.write_text("\n".join(lines))
    summary = stream("recording", gaze, "--video", video, PX)
    assert summary["sent"] >= 8
    assert summary["learned"] == summary["sent"]
    said = capsys.readouterr().err
    assert "10 lost" in said
    assert "1 time missing" in said
    assert "1 time back" in said or "2 time back" in said


def test_gaze_longer_than_the_video(stream: Stream, tmp_path: Path, gaze: Path) -> None:
    short = write_video(tmp_path / "short.avi", [np.full((240, 320, 3), 120, np.uint8)] * 50)
    summary = stream("recording", gaze, "--video", short, PX)
    assert summary["dropped"] == {"no_frame": 4}
    assert summary["sent"] == 5


def test_black_and_blank(stream: Stream, tmp_path: Path, gaze: Path) -> None:
    frames = [np.full((240, 320, 3), 120 if n < 45 else 2, np.uint8) for n in range(100)]
    summary = stream("recording", gaze, "--video", write_video(tmp_path / "dark.avi", frames), PX)
    assert summary["dropped"]["black"] == 3
    assert summary["found"] == summary["sent"] + sum(summary["dropped"].values())


def test_screen_geometry_instead_of_pixels_per_degree(stream: Stream, peer: Peer, video: Path, gaze: Path) -> None:
    stream("recording", gaze, "--video", video, "--screen-mm=380x300", "--distance-mm=670")
    (message, *_) = peer.messages("viewer")
    assert message.frame_deg is not None
    assert (message.frame_deg.width, message.frame_deg.height) == pytest.approx((32.5, 25.65), abs=0.01)


def test_pixels_of_another_picture(stream: Stream, peer: Peer, video: Path, gaze: Path) -> None:
    """Gaze in pixels of a screen on which the video was shown larger."""
    stream("recording", gaze, "--video", video, PX, "--gaze-frame=640x480")
    (message, *_) = peer.messages("viewer")
    assert (message.gaze.x, message.gaze.y) == pytest.approx((60 / 640, 60 / 480), abs=0.002)


def test_an_andersson_recording_over_its_picture(stream: Stream, peer: Peer, tmp_path: Path) -> None:
    from tests.clients.test_recording import write_mat

    generator = np.random.default_rng(0)
    rows = 1000
    position = np.column_stack([5e9 + np.arange(rows) * 2000.0, np.full((rows, 2), 20.0), np.zeros((rows, 3))])
    position[:, 3] = np.repeat([200, 800], rows // 2) + generator.normal(0, 0.3, rows)
    position[:, 4] = 400 + generator.normal(0, 0.3, rows)
    write_mat(tmp_path / "TH1.mat", pos=position)
    picture = tmp_path / "picture.png"
    cv2.imwrite(str(picture), generator.integers(0, 255, (768, 1024, 3), dtype=np.uint8))
    all_sent(stream("recording", tmp_path / "TH1.mat", "--video", picture), 2)
    assert [message.gaze.x for message in peer.messages("TH1")] == pytest.approx([200 / 1024, 800 / 1024], abs=0.01)


def test_a_shared_recording(stream: Stream, recordings: Path, peer: Peer) -> None:
    folder = recordings / "andersson2017"
    gaze = folder / "gaze_videos/TH34_video_BergoDalbana_labelled_RA.mat"
    summary = stream("recording", "--video", folder / "videos/BergoDalbana.avi", "--gaze", gaze)
    all_sent(summary, 11)
    assert len(peer.messages("TH34_video_BergoDalbana_labelled_RA")) == 11


def test_simulated_one_pass(stream: Stream, peer: Peer, video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = stream("simulated", video)
    assert 10 < summary["learned"] == summary["found"] < 20
    messages = peer.messages("simulated-blobs")
    assert all(message.sequence is None for message in messages), "a live stream marks no sequence by itself"
    assert messages[0].frame_deg is not None
    assert (messages[0].frame_deg.width, messages[0].frame_deg.height) == (30.0, 22.5)
    assert "30.0 x 22.5 degrees" in capsys.readouterr().err


def test_simulated_so_many(stream: Stream, peer: Peer, video: Path) -> None:
    all_sent(stream("simulated", video, "--fixations=40", "--seed=3", "--stream=s1"), 40)
    all_sent(stream("simulated", video, "--fixations=10", "--seed=3", "--stream=s1"), 10)
    messages = peer.messages("s1")
    assert len(messages) == 50, "a live stream goes on where it was"
    assert [m.onset for m in messages[40:]] == [m.onset for m in messages[:10]], "the seed decides"


def test_simulated_with_nothing_to_see(stream: Stream, tmp_path: Path) -> None:
    dark = write_video(tmp_path / "dark.avi", [np.zeros((60, 80, 3), np.uint8)] * 10)
    with pytest.raises(SourceError, match="black"):
        stream("simulated", dark, "--fixations=5")


@pytest.mark.parametrize(
    ("words", "kind", "said"),
    [
        (["recording"], OptionError, "--gaze FILE"),
        (["recording", "{gaze}"], OptionError, "--video FILE"),
        (["recording", "{gaze}", "--gaze", "{gaze}", "--video", "{video}"], OptionError, "which one"),
        (["recording", "{gaze}", "--video", "{video}"], UnitsUnknown, "--px-per-degree X.*--screen-mm"),
        (["recording", "{gaze}", "--video", "{video}", "--distance-mm=600"], OptionError, "belong together"),
        (["recording", "{gaze}", "--video", "{gaze}", "--px-per-degree=10"], SourceError, "can't be read"),
        (["recording", "{gaze}", "--video", "{tmp}/gone.avi"], SourceError, "not there"),
        (
            ["recording", "{tmp}/gone.csv", "--video", "{video}", "--px-per-degree=10"],
            SourceError,
            "gone.csv is not there",
        ),
        (["recording", "{tmp}", "--video", "{video}"], SourceError, "no recording of a format.*Looked for"),
        (["recording", "{gaze}", "--video", "{video}", "--px-per-degree=x"], OptionError, "--px-per-degree 'x'"),
        (["recording", "{gaze}", "--video", "{video}", "--speed=0"], OptionError, "--speed"),
        (["recording", "--vid", "{video}"], OptionError, "unrecognized arguments: --vid"),
        (["recording", "{gaze}", "--video", "{video}", "--detector=magic"], OptionError, "--detector"),
        (["recording", "{gaze}", "--video", "{video}", "--start=-1"], OptionError, "--start"),
        (
            ["recording", "{gaze}", "--video", "{video}", PX, "--start=2", "--end=2"],
            OptionError,
            "--end.*after --start",
        ),
        (["recording", "{gaze}", "--video", "{video}", PX, "--start=99"], OptionError, "viewer is 3.6 s long"),
        (["recording", "{gaze}", "--video", "{video}", "--px-per-degree=1e9"], OptionError, "frame width of 3.2e-07"),
        (["recording", "{gaze}", "--video", "{video}", PX, "--eye=left"], OptionError, "--eye says nothing.*table"),
        (["recording", "{gaze}", "--video", "{video}", PX, "--summary={tmp}/no/s.json"], OptionError, "no folder"),
        (["recording", "{gaze}", "--video", "{video}", PX, "--stream=a b"], OptionError, "'a b' is no id"),
        (["recording", "{gaze}", "--video", "{video}", PX, "--ingest=nowhere"], WorkerUnreachable, "nowhere"),
        (["recording", "{gaze}", "--video", "{video}", PX, "--key={tmp}/gone"], ClientError, "key file"),
        (["simulated", "{tmp}/gone.mp4"], SourceError, "not there"),
        (["simulated", "{video}", "--fixations=0"], OptionError, "--fixations"),
        (["telepathy"], OptionError, "there are: recording, simulated"),
    ],
)
def test_what_is_refused(
    video: Path, gaze: Path, tmp_path: Path, words: list[str], kind: type[ClientError], said: str
) -> None:
    filled = [word.format(video=video, gaze=gaze, tmp=tmp_path) for word in words]
    if words[0] != "telepathy":
        filled.append(f"--spool={tmp_path / 'spool'}")
    with pytest.raises(kind, match=said) as refused:
        main(filled)
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code in (1, 2, 4)
    assert not (tmp_path / "spool").exists(), "refused before anything was made"


def test_a_gaze_file_without_the_columns(tmp_path: Path, video: Path) -> None:
    gaze = tmp_path / "other.csv"
    gaze.write_text("frame,left,right\n1,2,3\n")
    done = run_rjepa("stream", "recording", "--video", video, "--gaze", gaze, PX)
    assert done.returncode == 2
    assert re.search(r"no column for timestamp and x and y; it has: frame, left, right.*--columns", done.stderr)
    assert "Traceback" not in done.stderr


def test_no_worker(video: Path, gaze: Path, tmp_path: Path) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    with pytest.raises(WorkerUnreachable, match="rjepa serve") as refused:
        main(
            [
                "recording",
                str(gaze),
                f"--video={video}",
                PX,
                f"--ingest={address}",
                "--connect-within=0.5",
                f"--spool={tmp_path / 's'}",
            ]
        )
    assert refused.value.exit_code == 4


def test_environment(peer: Peer, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RJEPA_INGEST", peer.address)
    monkeypatch.setenv("RJEPA_SPOOL", str(tmp_path / "elsewhere"))
    assert main(["simulated", str(video), "--fixations=3", "--speed=max", "--no-wait"]) == 0
    assert (tmp_path / "elsewhere" / "spool.db").exists()
    assert len(peer.messages("simulated-blobs")) == 3


def test_no_wait_ends_when_all_is_durable(peer: Peer, video: Path, tmp_path: Path) -> None:
    peer.learning = False
    common = [f"--ingest={peer.address}", f"--spool={tmp_path / 's'}", f"--summary={tmp_path / 'sum.json'}"]
    assert main(["simulated", str(video), "--fixations=5", "--speed=max", "--no-wait", *common]) == 0
    summary = json.loads((tmp_path / "sum.json").read_text())
    assert (summary["acked"], summary["learned"]) == (5, 0)


def test_real_pace(peer: Peer, video: Path, gaze: Path, tmp_path: Path) -> None:
    """At ten times real pace 3.6 s of gaze take at least 0.36 s."""
    import time

    begin_s = time.monotonic()
    common = [f"--ingest={peer.address}", f"--spool={tmp_path / 's'}"]
    assert main(["recording", str(gaze), f"--video={video}", PX, "--speed=10", *common]) == 0
    assert time.monotonic() - begin_s > 0.35
    assert len(peer.messages("viewer")) == 8


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_it_ends_cleanly_and_goes_on_later(
    peer: Peer, video: Path, gaze: Path, tmp_path: Path, number: signal.Signals
) -> None:
    words = [
        "stream",
        "recording",
        gaze,
        f"--video={video}",
        PX,
        f"--ingest={peer.address}",
        f"--spool={tmp_path / 's'}",
    ]
    with start_rjepa(*words, "--speed=1", logs=tmp_path / "logs") as running:
        wait_until(lambda: len(peer.messages("viewer")) >= 2, 30, "two fixations")
        running.process.send_signal(number)
        assert running.wait(20) == 130
        assert "the same command goes on from here" in running.stderr()
        assert "Traceback" not in running.stderr()
    before = len(peer.messages("viewer"))
    assert 2 <= before < 8
    done = run_rjepa(*words, "--speed=max")
    assert done.returncode == 0, done.stderr
    assert [message.seq for message in peer.messages("viewer")] == list(range(8))


def test_an_endless_one_is_stopped_with_0_and_keeps_its_spool(peer: Peer, video: Path, tmp_path: Path) -> None:
    words = [
        "stream",
        "simulated",
        video,
        "--loop",
        "--stream=s1",
        f"--ingest={peer.address}",
        f"--spool={tmp_path / 's'}",
    ]
    with start_rjepa(*words, "--speed=20", logs=tmp_path / "logs") as running:
        wait_until(lambda: len(peer.messages("s1")) > 30, 30, "fixations beyond one pass")
        peer.crash()
        written: set[int] = set()
        wal = tmp_path / "s" / "spool.db-wal"
        wait_until(lambda: written.add(wal.stat().st_mtime_ns) or len(written) > 20, 30, "fixations to be spooled")
        running.process.send_signal(signal.SIGTERM)
        assert running.wait(20) == 0
        assert "Traceback" not in running.stderr()
        assert "they wait in" in running.stderr()
    spool = Spool(tmp_path / "s", "s1")
    kept, epoch = spool.entries(), spool.epoch
    spool.close()
    assert kept
    assert epoch == 1
    peer.start()
    done = run_rjepa(*[word for word in words if word != "--loop"], "--fixations=1", "--speed=max")
    assert done.returncode == 0, done.stderr
    seqs = [message.seq for message in peer.messages("s1")]
    assert seqs == list(range(len(seqs)))
    assert {hello.epoch for hello in peer.hellos} == {None, 1}


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    from clients.live_settings import SETTINGS
    from clients.settings import RecordingSettings, SimulatedSettings

    assert main(["--help"]) == 0
    assert "simulated" in capsys.readouterr().out
    assert main([]) == 2
    for kind, settings in (("recording", RecordingSettings), ("simulated", SimulatedSettings), *SETTINGS.items()):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([kind, "--help"])
        assert ended.value.code == 0
        told = capsys.readouterr().out
        for name, field in settings.model_fields.items():
            positional = (field.json_schema_extra or {}).get("positional")  # type: ignore[union-attr]
            assert positional or f"--{name.replace('_', '-')}" in told
            assert field.description
