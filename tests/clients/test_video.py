"""Frames by time, from videos and pictures; and the errors where there are none."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from clients.errors import SourceError
from clients.video import SECOND_NS, Looped, Picture, Video, open_frames
from tests.clients.conftest import write_video

MS = 1_000_000


@pytest.fixture
def counting(tmp_path: Path) -> Path:
    """20 frames at 25 frames/s, each as bright as its number."""
    return write_video(tmp_path / "counting.avi", [np.full((64, 96, 3), 40 + 10 * n, np.uint8) for n in range(20)])


def number(frame: object) -> int:
    return round((float(frame.bgr.mean()) - 40) / 10)  # type: ignore[attr-defined]


def test_the_nearest_frame(counting: Path) -> None:
    with Video(counting) as video:
        assert (video.width_px, video.height_px, video.period_ns) == (96, 64, 40 * MS)
        for time_ms, expected in ((0, 0), (19, 0), (21, 1), (60, 1), (61, 2), (400, 10), (761, 19), (795, 19)):
            frame = video.nearest(time_ms * MS)
            assert frame is not None
            assert number(frame) == expected
            assert frame.time_ns == expected * 40 * MS


def test_before_the_first_and_after_the_last_is_none(counting: Path) -> None:
    with Video(counting) as video:
        assert video.nearest(-21 * MS) is None
        assert video.nearest(-19 * MS) is not None
        assert video.nearest(801 * MS) is None
        assert video.nearest(10_000 * MS) is None


def test_a_step_back_begins_again(counting: Path) -> None:
    with Video(counting) as video:
        for time_ms, expected in ((700, 17), (80, 2), (5000, None), (0, 0), (360, 9), (320, 8)):
            frame = video.nearest(time_ms * MS)
            assert (None if frame is None else number(frame)) == expected


def test_a_loop_has_a_beginning(counting: Path) -> None:
    with Video(counting) as video:
        looped = Looped(video)
        assert looped.nearest(-SECOND_NS) is None
        again = looped.nearest(1000 * SECOND_NS)
        assert again is not None
        assert looped.nearest(-SECOND_NS) is None, "its length is known now, and it began when it began"


def test_every_frame_once(counting: Path) -> None:
    with Video(counting) as video:
        video.nearest(300 * MS)
        assert [number(frame) for frame in video.frames()] == list(range(20))
        frame = video.nearest(120 * MS)
        assert frame is not None
        assert number(frame) == 3


def test_times_from_elsewhere(counting: Path) -> None:
    times_ns = [n * 100 * MS for n in range(20)]
    with Video(counting, times_ns) as video:
        frame = video.nearest(1240 * MS)
        assert frame is not None
        assert (number(frame), frame.time_ns) == (12, 1200 * MS)


def test_a_picture_is_shown_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), np.full((30, 40, 3), 7, np.uint8))
    picture = open_frames(path)
    assert isinstance(picture, Picture)
    assert (picture.width_px, picture.height_px) == (40, 30)
    frame = picture.nearest(123_456_789_000)
    assert frame is not None
    assert number(frame) == -3


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("gone.avi", None, "is not there"),
        ("text.mp4", b"not a video at all", "can't be read"),
        ("empty.avi", b"", "can't be read"),
        ("gone.png", None, "is not there"),
        ("text.jpg", b"not a picture", "not a picture"),
    ],
)
def test_no_video(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=said) as refused:
        open_frames(path)
    assert str(path) in str(refused.value)


def test_a_video_without_frames(tmp_path: Path) -> None:
    """A container that opens and holds no frame."""
    writer = cv2.VideoWriter(str(tmp_path / "none.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (96, 64))
    writer.release()
    with pytest.raises(SourceError, match=r"none\.avi"):
        open_frames(tmp_path / "none.avi")


def test_a_video_cut_short(recordings: Path, tmp_path: Path) -> None:
    """What can be decoded is used; after it there is no frame."""
    whole = (recordings / "andersson2017/videos/BergoDalbana.avi").read_bytes()
    short = tmp_path / "short.avi"
    short.write_bytes(whole[: len(whole) // 2])
    with Video(short) as video:
        count = sum(1 for _ in video.frames())
        assert 20 < count < 190
        assert video.nearest(8_000 * MS) is None


def test_a_real_video(recordings: Path) -> None:
    with Video(recordings / "andersson2017/videos/BergoDalbana.avi") as video:
        assert (video.width_px, video.height_px, video.period_ns) == (720, 576, 40 * MS)
        assert sum(1 for _ in video.frames()) == 203
