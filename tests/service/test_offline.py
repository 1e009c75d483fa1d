from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from service.errors import CalibrationSourceError
from service.offline import calibration_patches


def video(path: Path, frames: int = 12) -> None:
    generator = np.random.default_rng(0)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (320, 180))
    for _ in range(frames):
        coarse = generator.integers(0, 256, (9, 16, 3), dtype=np.uint8)
        writer.write(cv2.resize(coarse, (320, 180), interpolation=cv2.INTER_CUBIC))
    writer.release()


def test_patches_come_from_videos_and_pictures_and_the_seed(tmp_path: Path) -> None:
    video(tmp_path / "one.avi")
    (tmp_path / "below").mkdir()
    red = np.zeros((170, 300, 3), np.uint8)
    red[:, :, 2] = 200
    cv2.imwrite(str(tmp_path / "below" / "red.PNG"), red)
    (tmp_path / "notes.txt").write_text("no picture")
    first = calibration_patches(tmp_path, seed=0, count=50)
    assert (first.shape, first.dtype) == ((50, 50, 50, 3), np.uint8)
    assert np.array_equal(first, calibration_patches(tmp_path, seed=0, count=50))
    assert not np.array_equal(first, calibration_patches(tmp_path, seed=1, count=50))
    reds = [patch for patch in first if (patch == [200, 0, 0]).all()]
    assert len(reds) == 25, "both files count the same, and colours are in order"
    assert len(calibration_patches(tmp_path / "one.avi", seed=0, count=300)) == 300


def test_what_cannot_be_read_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(CalibrationSourceError, match="no such file"):
        calibration_patches(tmp_path / "nothing", seed=0)
    with pytest.raises(CalibrationSourceError, match="no video or picture"):
        calibration_patches(tmp_path, seed=0)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(CalibrationSourceError, match="nothing can be seen in any of its 1 files"):
        calibration_patches(tmp_path, seed=0)
    cv2.imwrite(str(tmp_path / "dark.png"), np.zeros((100, 100, 3), np.uint8))
    with pytest.raises(CalibrationSourceError, match="nothing can be seen"):
        calibration_patches(tmp_path, seed=0)
    video(tmp_path / "one.avi")
    calibration_patches(tmp_path, seed=0, count=20)
    assert "broken.mp4" in caplog.text


def test_a_recording_of_a_lab(recordings: Path) -> None:
    patches = calibration_patches(recordings / "andersson2017" / "videos", seed=0, count=40)
    assert patches.std() > 5
