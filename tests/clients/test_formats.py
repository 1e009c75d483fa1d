"""Every format of recordings: recognised, its gaze, fixations, video and degrees read; and what is said where not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from clients.errors import ClientError, OptionError, SourceError, StreamConflict, UnitsUnknown
from clients.fixations import Fixation
from clients.formats import FORMATS
from clients.gaze import GazeTrack
from clients.main import main
from clients.opened import OpenedRecording, open_recording
from clients.settings import RecordingFormat, RecordingSettings, load
from clients.told import placed
from tests.clients.conftest import write_video
from tests.clients.made_recordings import BEGIN_NS, MAKERS, PLACES, PLANTED, Made, frame_times
from tests.clients.peer import Peer
from tests.clients.test_patches import degrees_across
from tests.helpers import start_rjepa, wait_until

NAMES = list(MAKERS)


def opened(path: Path, *words: str) -> OpenedRecording:
    return open_recording(load(RecordingSettings, [str(path), *words], "rjepa stream recording", ""))


@pytest.fixture(params=NAMES)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Made:
    return MAKERS[request.param](tmp_path)


def test_every_format_has_its_name() -> None:
    assert list(get_args(RecordingFormat)) == list(FORMATS) == NAMES


def test_the_fixations_of_every_format(made: Made) -> None:
    """By our detector in its samples, and as the tracker found them."""
    ways = [] if made.format == "studyforrest" else [("auto", 14_000_000)]
    for way, tolerance_ns in [*ways, ("tracker", 0)][: 1 + made.tracker]:
        with opened(made.path, *made.words, f"--detector={way}") as recording:
            assert recording.form.name == made.format
            assert recording.shown_px == made.size_px
            assert recording.size.px_per_degree(*made.size_px) == pytest.approx(made.px_per_degree, rel=0.001)
            found = [fixation for fixation, frame in recording.fixations() if frame is not None]
        begin_ns = 0 if made.format == "studyforrest" else BEGIN_NS
        assert [f.onset_ns - begin_ns for f in found] == pytest.approx(
            [p.onset_ns - BEGIN_NS for p in PLANTED], abs=tolerance_ns + 1000
        )
        assert [f.end_ns - begin_ns for f in found] == pytest.approx(
            [p.end_ns - BEGIN_NS for p in PLANTED], abs=tolerance_ns + 1000
        )
        np.testing.assert_allclose([(f.x, f.y) for f in found], PLACES, atol=1e-3)


def test_a_patch_covers_five_degrees_through_every_format(
    made: Made, peer: Peer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = [f"--ingest={peer.address}", f"--spool={tmp_path / 'spool'}", "--speed=max", "--stream=board"]
    assert main(["recording", str(made.path), *made.words, *common]) == 0
    assert FORMATS[made.format].title in capsys.readouterr().err, "what it was recognised as is said"
    messages = peer.messages("board")
    assert len(messages) == len(PLACES)
    across = made.size_px[0] / made.px_per_degree[0]
    for message, (x, _) in zip(messages, PLACES, strict=True):
        assert message.frame_deg is not None
        assert message.frame_deg.width == pytest.approx(across, rel=0.001)
        assert message.gaze.x == pytest.approx(x, abs=1e-3)
        grey = peer.patches["board", message.seq][..., 0].astype(float)
        lines = [*grey[4:48:9], *grey[:, 4:48:9].T]
        covered = [degrees_across(line) for line in lines if np.ptp(line) > 100]  # not one along a border
        assert len(covered) >= 2
        assert covered == pytest.approx([5.0] * len(covered), rel=0.02)


@pytest.mark.parametrize("name", ["pupil-player", "neon", "neon-export"])
def test_frames_are_matched_by_their_own_times(name: str, tmp_path: Path) -> None:
    """Frames that come unevenly, each of its own brightness: the nearest in time, not the nearest by number."""
    made = MAKERS[name](tmp_path)
    (video,) = made.path.glob("*.mp4")
    grey = [np.full((made.size_px[1] // 4, made.size_px[0] // 4, 3), 20 + 10 * n, np.uint8) for n in range(22)]
    write_video(tmp_path / "grey.avi", grey, 10.0)
    shutil.copy(tmp_path / "grey.avi", video)  # OpenCV tells the container by its content
    with opened(made.path, "--px-per-degree=5") as recording:
        for fixation, frame in recording.fixations():
            assert frame is not None
            shown = int(np.argmin([abs(time_ns - fixation.onset_ns) for time_ns in frame_times()]))
            assert round((frame.bgr.mean() - 20) / 10) == shown


def test_a_neon_recording_in_two_videos(tmp_path: Path) -> None:
    """The camera was unplugged: the second file begins later, with its own times."""
    made = MAKERS["neon"](tmp_path)
    for part, first in ((1, 20), (2, 120)):
        stem = made.path / f"Neon Scene Camera v1 ps{part}"
        times = frame_times()[:8] if part == 1 else [t + 50_000_000 for t in frame_times()[12:]]
        grey = [np.full((60, 80, 3), first + 10 * n, np.uint8) for n in range(len(times))]
        shutil.copy(write_video(tmp_path / f"{part}.avi", grey, 10.0), stem.with_suffix(".mp4"))
        np.array(times, "<u8").tofile(stem.with_suffix(".time"))
    with opened(made.path, "--detector=tracker") as recording:
        frames = [None if frame is None else round(frame.bgr.mean()) for _, frame in recording.fixations()]
    assert [value is not None and value < 110 for value in frames] == [True, True, False, False, False]
    assert frames[2] is None, "nothing was filmed then"
    assert all(value is not None and value > 110 for value in frames[3:])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # that library leaves files open
def test_the_neon_reader_agrees_with_pupil_labs_own(tmp_path: Path) -> None:
    library = pytest.importorskip("pupil_labs.neon_recording", reason="pupil-labs-neon-recording is not installed")
    made = MAKERS["neon"](tmp_path)
    (made.path / "info.json").write_text(json.dumps({"app_version": "2.8.1", "gaze_offset": [16.0, 12.0]}))
    theirs = library.open(made.path)
    from clients.neon_native import FORMAT, _fixations
    from clients.recorded import Asked

    ours = FORMAT.read(made.path, Asked(RecordingSettings(), (1600, 1200), own_video=True))
    assert ours.track is not None
    assert ours.track.time_ns.tolist() == np.asarray(theirs.gaze.time).tolist()
    np.testing.assert_allclose(
        np.stack([ours.track.x * 1600, ours.track.y * 1200], 1), np.asarray(theirs.gaze.point), rtol=1e-6
    )
    assert ours.fixations is not None
    assert [(f.onset_ns, f.end_ns) for f in ours.fixations] == list(
        zip(theirs.fixations.start_time.tolist(), theirs.fixations.stop_time.tolist(), strict=True)
    )
    told = [(f.x * 1600, f.y * 1200) for f in _fixations(made.path)]
    np.testing.assert_allclose(told, np.asarray(theirs.fixations.mean_gaze_point), rtol=1e-5)
    theirs.close()


def test_a_format_is_overridden(tmp_path: Path) -> None:
    made = MAKERS["pupil-player"](tmp_path)
    table = made.path / "gaze_positions.csv"
    words = [f"--video={made.path / 'world.mp4'}", "--px-per-degree=10"]
    with opened(table, *words) as recording:
        assert recording.form.name == "table"
    with pytest.raises(SourceError, match=r"no struct ETdata|no \.mat file"):
        opened(table, *words, "--format=andersson")


def test_an_eye_is_chosen(tmp_path: Path) -> None:
    made = MAKERS["eyelink"](tmp_path)
    with opened(made.path, *made.words) as recording:
        assert recording.notes[0].startswith("right eye"), "the left one was lost at first"
    with opened(made.path, *made.words, "--eye=left") as recording:
        fixation, _ = next(recording.fixations())
        assert fixation.x == pytest.approx(0.5 - 60 / 1680, abs=1e-3)
    made = MAKERS["bids"](tmp_path)
    with pytest.raises(OptionError, match="RecordedEye is left"):
        opened(made.path, *made.words, "--eye=left")


@pytest.mark.parametrize(("name", "before_ns"), [("eyelink", 4_000_000), ("bids", 0), ("tobii", 0)])
def test_the_video_begins_at_a_message(name: str, before_ns: int, tmp_path: Path) -> None:
    made = MAKERS[name](tmp_path)
    text = "VideoStimulusStart" if name == "tobii" else "video on"
    with opened(made.path, *made.words, f"--video-message={text}") as recording:
        assert recording.video_start_ns == BEGIN_NS - before_ns
    with pytest.raises(OptionError, match=f"none of the .* messages.*{text}"):
        opened(made.path, *made.words, "--video-message=nothing like it")


def test_a_video_is_looped_under_longer_gaze(tmp_path: Path) -> None:
    made = MAKERS["table"](tmp_path)
    video = write_video(tmp_path / "short.avi", [np.full((60, 80, 3), 40 + 20 * n, np.uint8) for n in range(10)], 25.0)
    words = [f"--video={video}", "--px-per-degree=2", "--video-start=999.95"]
    with opened(made.path, *words) as recording:
        shown = [frame is not None for _, frame in recording.fixations()]
    assert shown == [True, False, False, False, False]
    with opened(made.path, *words, "--video-loop") as recording:
        for fixation, frame in recording.fixations():
            assert frame is not None
            into_s = (fixation.onset_ns * 1e-9 - 999.95) % 0.4
            assert abs((frame.bgr.mean() - 40) / 20 - into_s * 25) < 0.6 or into_s > 0.37


def test_a_recording_is_looped(tmp_path: Path, peer: Peer) -> None:
    """Until stopped: each pass is a new sequence, later than the one before, and the numbers go on."""
    made = MAKERS["eyelink"](tmp_path)
    words = [f"--ingest={peer.address}", f"--spool={tmp_path / 's'}", "--speed=20", "--stream=round", "--loop"]
    with start_rjepa("stream", "recording", str(made.path), *made.words, *words, logs=tmp_path / "logs") as running:
        wait_until(lambda: len(peer.messages("round")) >= 12, 120.0, "12 fixations of three passes")
        assert running.terminate() == 0, running.stderr()
    messages = peer.messages("round")[:12]
    assert [message.seq for message in messages] == list(range(12))
    assert [message.seq for message in messages if message.sequence is not None] == [0, 5, 10]
    onsets = [message.onset for message in messages]
    assert onsets == sorted(onsets)
    assert onsets[5] - onsets[0] == pytest.approx(onsets[6] - onsets[1])
    assert onsets[5] - onsets[0] == pytest.approx(2.996, abs=0.01), "its length and a second"


SPOILED: list[tuple[str, Any, type[ClientError], str]] = [
    ("pupil-player", lambda p: (p / "world_timestamps.csv").unlink(), SourceError, "world_timestamps.csv"),
    ("pupil-player", lambda p: (p / "world.mp4").unlink(), OptionError, "--video FILE"),
    ("pupil-player", lambda p: (p.parent.parent / "world.intrinsics").unlink(), UnitsUnknown, "focal length"),
    ("pupil-player", lambda p: (p / "gaze_positions.csv").write_text("a,b\n1,2\n"), SourceError, "no column"),
    ("neon", lambda p: (p / "calibration.bin").unlink(), UnitsUnknown, "focal length"),
    ("neon", lambda p: (p / "Neon Scene Camera v1 ps1.mp4").unlink(), OptionError, "--video FILE"),
    ("neon", lambda p: (p / "gaze ps1.time").unlink(), SourceError, "gaze ps1.time"),
    ("neon-export", lambda p: shutil.copy(p / "61b7-scene.mp4", p / "b.mp4"), SourceError, "more than one video"),
    ("neon-export", lambda p: (p / "scene_camera.json").write_text("{}"), SourceError, "camera_matrix"),
    ("eyelink", lambda p: p.write_text("MSG 1 x\n"), SourceError, "no gaze samples"),
    ("eyelink", lambda p: p.write_text(p.read_text().replace("\tRES\t", "\t")), UnitsUnknown, "--screen-mm"),
    ("eyelink", lambda p: p.write_text(p.read_text().replace("SAMPLES\tGAZE", "SAMPLES\tHREF")), SourceError, "HREF"),
    ("eyelink", lambda p: p.write_text(p.read_text().replace("GAZE_COORDS", "NO")), SourceError, "--gaze-frame"),
    ("bids", lambda p: next(p.glob("*_physio.json")).write_text('{"Columns": []}'), SourceError, "no recording of"),
    ("bids", lambda p: (p.parent.parent / "task-search_events.json").unlink(), UnitsUnknown, "--gaze-frame"),
    ("tobii", lambda p: p.write_text(p.read_text().replace(" [μs]", "")), UnitsUnknown, "--time-unit"),
    ("tobii", lambda p: p.write_text(p.read_text().replace("Eye Tracker", "Gyroscope")), SourceError, "no row of the"),
    (
        "studyforrest",
        lambda p: p.write_text(p.read_text().replace("FIXA", "S").replace("PURS", "S")),
        SourceError,
        "no row",
    ),
]


@pytest.mark.parametrize(("name", "spoil", "kind", "said"), SPOILED, ids=[f"{s[0]}: {s[3]}" for s in SPOILED])
def test_what_is_missing_is_said(name: str, spoil: Any, kind: type[ClientError], said: str, tmp_path: Path) -> None:
    made = MAKERS[name](tmp_path)
    spoil(made.path)
    with pytest.raises(kind, match=said) as refused:
        opened(made.path, *made.words)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_none_is_refused_by_every_format(name: str, tmp_path: Path) -> None:
    """--format says what it is, and it is not: an empty folder, noise, an empty file."""
    picture = tmp_path / "shown.png"
    picture.write_bytes(MAKERS["table"](tmp_path).path.with_name("board.png").read_bytes())
    (tmp_path / "folder").mkdir()
    (tmp_path / "noise.tsv.gz").write_bytes(np.random.default_rng(0).bytes(3000))
    (tmp_path / "empty.csv").write_bytes(b"")
    for file in ("folder", "noise.tsv.gz", "empty.csv"):
        for words in ([f"--video={picture}", "--px-per-degree=10"], []):
            with pytest.raises(ClientError) as refused:
                opened(tmp_path / file, f"--format={name}", *words)
            assert file in str(refused.value)


def test_an_unknown_folder_says_what_is_there(tmp_path: Path) -> None:
    MAKERS["pupil-player"](tmp_path)
    said = r"There: exports/, world.intrinsics; but .*000/exports/000 is one: name that.*gaze_positions.csv"
    with pytest.raises(SourceError, match=said):
        opened(tmp_path / "000")
    (tmp_path / "note.docx").write_bytes(b"x")
    with pytest.raises(SourceError, match=r"There: a file note\.docx of 1 bytes"):
        opened(tmp_path / "note.docx")


def test_the_trackers_fixations_where_there_are_none(tmp_path: Path) -> None:
    made = MAKERS["table"](tmp_path)
    with pytest.raises(OptionError, match="no fixations of the tracker's own"):
        opened(made.path, *made.words, "--detector=tracker")
    made = MAKERS["studyforrest"](tmp_path)
    with pytest.raises(OptionError, match="no samples"):
        opened(made.path, *made.words, "--detector=ivt")


def test_bids_screens_in_cm_are_not_believed(tmp_path: Path) -> None:
    made = MAKERS["bids"](tmp_path)
    told = made.path.parent.parent / "task-search_events.json"
    told.write_text(told.read_text().replace("0.6", "60"))
    with pytest.raises(UnitsUnknown, match="in m there"):
        opened(made.path, *made.words)


def test_another_format_of_the_same_is_another_recording(tmp_path: Path, peer: Peer) -> None:
    made = MAKERS["eyelink"](tmp_path)
    common = [f"--ingest={peer.address}", f"--spool={tmp_path / 'spool'}", "--speed=max", "--stream=s"]
    assert main(["recording", str(made.path), *made.words, *common]) == 0
    with pytest.raises(StreamConflict):
        main(["recording", str(made.path), *made.words, *common, "--detector=tracker"])


def test_its_own_video_is_not_looped(tmp_path: Path) -> None:
    made = MAKERS["neon-export"](tmp_path)
    with pytest.raises(OptionError, match="has its own"):
        opened(made.path, "--video-loop")


@pytest.mark.parametrize(("min_confidence", "x"), [(0.3, 0.25), (0.5, 0.75), (None, 0.75)])
def test_a_trackers_fixation_is_placed_by_the_samples_that_count(min_confidence: float | None, x: float) -> None:
    """Where none does, it stays where the tracker said it was."""
    at, sure = np.arange(10), np.ones(10, np.bool_)
    track = GazeTrack(Path("made"), at * 4_000_000, sure, np.full(10, 0.25), np.full(10, 0.5), np.full(10, 0.4))
    (found,) = placed(track, [Fixation(0, 36_000_000, 0.75, 0.5)], min_confidence)
    assert found.x == x
