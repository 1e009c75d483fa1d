"""The real recordings beside the checkout, through the same door; skipped where they are not there."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.fixations import Fixation
from clients.opened import OpenedRecording, open_recording
from clients.settings import RecordingSettings
from clients.studyforrest import read_scanpath


def opened(path: Path, **words: Any) -> OpenedRecording:
    return open_recording(RecordingSettings(path=path, **words))


def found(recording: OpenedRecording) -> list[Fixation]:
    """The fixations alone: no frame is decoded."""
    return [f for moment in recording.finder.moments(-np.inf, np.inf) for f in moment.fixations]


def shared(ours: list[Fixation], theirs: list[Fixation]) -> int:
    """How many of theirs one of ours overlaps."""
    return sum(any(a.onset_ns <= b.end_ns and b.onset_ns <= a.end_ns for a in ours) for b in theirs)


def test_neon(recordings: Path) -> None:
    with opened(recordings / "neon") as recording:
        assert recording.form.name == "neon"
        assert recording.size.px_per_degree(1600, 1200) == pytest.approx((15.53, 15.53), abs=0.01)
        ours = found(recording)
        shown = [recording.shown(fixation) for fixation in ours]
    assert len(ours) == 30
    assert sum(frame is not None for frame in shown) == 11, "the video is shorter than the gaze"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # that library leaves files open
def test_neon_as_pupil_labs_read_it(recordings: Path) -> None:
    library = pytest.importorskip("pupil_labs.neon_recording", reason="pupil-labs-neon-recording is not installed")
    theirs = library.open(recordings / "neon")
    with opened(recordings / "neon") as recording:
        track = recording.finder._track  # type: ignore[attr-defined]
        assert track.time_ns.tolist() == np.asarray(theirs.gaze.time).tolist()
        ours = np.stack([track.x * 1600, track.y * 1200], 1)
        np.testing.assert_allclose(ours, np.asarray(theirs.gaze.point), rtol=1e-6)
        matrix = theirs.calibration.scene_camera_matrix
        across, down = recording.size.px_per_degree(1600, 1200)
        assert (across, down) == pytest.approx((matrix[0][0] * np.pi / 180, matrix[1][1] * np.pi / 180), rel=1e-4)
        times = np.asarray(theirs.scene.time).tolist()
        assert recording.video_start_ns == times[0]
        assert recording.frames._times_ns[: len(times)] == [t - times[0] for t in times]  # type: ignore[attr-defined]
    theirs.close()


def test_pupil_player(recordings: Path) -> None:
    video = recordings / "andersson2017" / "videos" / "BergoDalbana.avi"
    words: dict[str, Any] = {"video": video, "px_per_degree": "16"}
    with opened(recordings / "pupil_core_export", **words) as recording:
        assert recording.form.name == "pupil-player"
        ours = found(recording)
    with opened(recordings / "pupil_core_export", detector="tracker", **words) as recording:
        theirs = found(recording)
    assert len(theirs) == 36
    assert shared(ours, theirs) >= 30


@pytest.mark.parametrize(
    ("name", "theirs_count", "px_per_degree"),
    [
        ("sp_tool_eyelink_data_example", 38, (41.0, 45.48)),
        ("pymovements_eyelink_binocular_example", 2, (47.75, 45.92)),
        ("pymovements_eyelink_monocular_example", 2, (37.17, 37.75)),
    ],
)
def test_eyelink(recordings: Path, name: str, theirs_count: int, px_per_degree: tuple[float, float]) -> None:
    picture = recordings / "andersson2017" / "images" / "Europe1024x768.png"
    path = recordings / "eyelink_asc" / f"{name}.asc"
    with opened(path, video=picture, detector="tracker") as recording:
        theirs = found(recording)
        size_px = tuple(float(n) for n in recording.notes[0].split(" px of ")[1].split(" x ") if n)
        told = (size_px[0] / recording.size.width_deg, size_px[1] / recording.size.height_deg)
        assert told == pytest.approx(px_per_degree, abs=0.01)
    assert len(theirs) == theirs_count
    with opened(path, video=picture) as recording:
        ours = found(recording)
    if theirs_count > 2:  # the third has 16 samples in all
        assert shared(ours, theirs) >= 35
        near = [min(abs(a.onset_ns - b.onset_ns) for a in ours) for b in theirs]
        assert np.median(near) < 12e6


def test_studyforrest(recordings: Path) -> None:
    picture = recordings / "andersson2017" / "images" / "Europe1024x768.png"
    with opened(recordings / "studyforrest", video=picture) as recording:
        assert recording.form.name == "studyforrest"
        everything = found(recording)
        assert recording.finder.length_s > 6000
    fixations = len(read_scanpath(recordings / "studyforrest"))
    assert fixations > 10_000
    assert len(everything) > fixations, "pursuits count too"
    onsets = [fixation.onset_ns for fixation in everything]
    assert onsets == sorted(onsets)


def test_andersson(recordings: Path) -> None:
    folder = recordings / "andersson2017"
    with opened(
        folder / "gaze_videos" / "TH34_video_BergoDalbana_labelled_RA.mat", video=folder / "videos" / "BergoDalbana.avi"
    ) as recording:
        assert recording.form.name == "andersson"
        assert len(found(recording)) == 11


def test_every_shared_recording_is_recognised(recordings: Path) -> None:
    from clients.formats import recognise

    paths = [recordings / "neon", recordings / "pupil_core_export", recordings / "studyforrest"]
    paths += [file for suffix in ("asc", "mat", "tsv") for file in recordings.rglob(f"*.{suffix}")]
    counted = Counter(recognise(path).name for path in paths)
    assert counted == {"neon": 1, "pupil-player": 1, "studyforrest": 9, "eyelink": 3, "andersson": 13}
