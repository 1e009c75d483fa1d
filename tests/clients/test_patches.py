"""Patches: 5.0 degrees, whatever the pixels; mirrored at the edge; none where there is nothing to see."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.errors import BadFixation, OptionError
from clients.patches import NoPatch, check_patch, cut
from clients.units import FrameSize, from_px_per_degree, from_screen, parse_pair, px_per_degree


def checkerboard(width_px: int, height_px: int, across: float, down: float) -> np.ndarray:
    """Fields of one degree, 60 and 200 bright. A pixel on a border has its share of both, as a camera's would."""

    def wave(count: int, field_px: float) -> np.ndarray:
        edges = np.arange(count + 1) / field_px
        swing = np.where(np.floor(edges) % 2 == 0, edges % 1, 1 - edges % 1)  # the integral of +1, -1, +1 ...
        return np.diff(swing) * field_px

    board = np.rint(130 + 70 * np.outer(wave(height_px, down), wave(width_px, across))).astype(np.uint8)
    return np.repeat(board[:, :, None], 3, axis=2)


def degrees_across(line: np.ndarray) -> float:
    """How many degrees a row of a patch of the checkerboard covers, by where its fields of 1 degree change."""
    middle = 130.0
    below = np.flatnonzero((line[:-1] < middle) != (line[1:] < middle))
    crossings = below + (middle - line[below]) / (line[below + 1] - line[below])
    return float(50.0 / np.mean(np.diff(crossings)))


DEVICES = [
    pytest.param(1280, 720, 13.9, 13.9, id="scene camera, 13.9 px/deg"),
    pytest.param(640, 480, 6.9, 6.9, id="scene camera, 6.9 px/deg: enlarged"),
    pytest.param(1600, 1200, 15.5, 15.5, id="scene camera, 15.5 px/deg"),
    pytest.param(1024, 768, 31.5, 29.9, id="screen, anisotropic"),
    pytest.param(720, 576, 22.2, 22.5, id="video shown full screen"),
    pytest.param(1920, 1080, 60.3, 60.3, id="screen, 301 px a patch"),
    pytest.param(800, 600, 10.0, 10.0, id="one to one"),
]


@pytest.mark.parametrize(("width_px", "height_px", "across", "down"), DEVICES)
def test_a_patch_covers_five_degrees(width_px: int, height_px: int, across: float, down: float) -> None:
    board = checkerboard(width_px, height_px, across, down)
    size = from_px_per_degree(width_px, height_px, across, down)
    for x, y in ((0.5, 0.5), (0.431, 0.517), (0.57, 0.44)):
        grey = cut(board, x, y, size).rgb[..., 0].astype(float)
        rows = [line for line in (grey[4], grey[9], grey[31]) if np.ptp(line) > 100]  # not one along a border
        columns = [line for line in (grey[:, 4], grey[:, 9], grey[:, 31]) if np.ptp(line) > 100]
        assert rows
        assert columns
        for line in rows + columns:
            assert degrees_across(line) == pytest.approx(5.0, rel=0.02)


def test_the_gaze_is_in_the_middle() -> None:
    frame = np.full((400, 600, 3), 100, np.uint8)
    frame[:, 300:] = 200
    frame[120:] //= 2
    rgb = cut(frame, 300 / 600, 120 / 400, FrameSize(30.0, 20.0)).rgb
    assert rgb[:25, :25].mean() == 100
    assert rgb[:25, 25:].mean() == 200
    assert rgb[25:, :25].mean() == 50
    assert rgb[25:, 25:].mean() == 100


def test_shrinking_is_the_mean_over_area() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    size = from_px_per_degree(400, 300, 20.0, 20.0)
    theirs = cv2.resize(frame[100:200, 150:250], (50, 50), interpolation=cv2.INTER_AREA)
    ours = cut(frame, 200 / 400, 150 / 300, size).rgb
    assert np.abs(ours.astype(int) - theirs[..., ::-1]).max() <= 1, "OpenCV rounds halves to even"


def test_enlarging_is_linear() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    theirs = cv2.resize(frame[135:165, 185:215], (50, 50), interpolation=cv2.INTER_LINEAR)
    ours = cut(frame, 200 / 400, 150 / 300, from_px_per_degree(400, 300, 6.0, 6.0)).rgb
    inner = slice(2, -2)  # at its border theirs knows nothing of the pixels outside
    assert np.abs(ours.astype(int) - theirs[..., ::-1])[inner, inner].max() <= 1


def test_colours_are_red_green_blue() -> None:
    frame = np.zeros((100, 100, 3), np.uint8)
    frame[...] = (10, 20, 230)  # blue, green, red
    assert cut(frame, 0.5, 0.5, FrameSize(10.0, 10.0)).rgb[25, 25].tolist() == [230, 20, 10]


@pytest.mark.parametrize(
    ("x", "y", "padded"),
    [(0.5, 0.5, 0.0), (0.0, 0.5, 0.5), (1.0, 0.5, 0.5), (0.5, 0.0, 0.5), (0.0, 0.0, 0.75), (1 / 30, 0.5, 0.3)],
)
def test_padding_is_told(x: float, y: float, padded: float) -> None:
    frame = np.full((400, 600, 3), 90, np.uint8)
    assert cut(frame, x, y, FrameSize(30.0, 20.0)).padded == pytest.approx(padded)


def test_padding_mirrors() -> None:
    frame = np.random.default_rng(1).integers(0, 256, (400, 600, 3), dtype=np.uint8)
    rgb = cut(frame, 0.0, 0.5, FrameSize(30.0, 20.0)).rgb
    np.testing.assert_array_equal(rgb[:, :25], rgb[:, :24:-1])


def test_a_frame_smaller_than_a_patch() -> None:
    frame = np.random.default_rng(1).integers(100, 256, (7, 9, 3), dtype=np.uint8)
    patch = cut(frame, 0.5, 0.5, FrameSize(2.0, 1.0))
    assert patch.rgb.shape == (50, 50, 3)
    assert patch.padded == pytest.approx(1 - 0.4 * 0.2)


@pytest.mark.parametrize("gaze", [(-0.001, 0.5), (0.5, 1.001), (float("nan"), 0.5), (0.5, float("inf"))])
def test_gaze_off_the_frame_gives_none(gaze: tuple[float, float]) -> None:
    with pytest.raises(NoPatch) as none:
        cut(np.full((100, 100, 3), 90, np.uint8), *gaze, FrameSize(10.0, 10.0))
    assert none.value.reason == "off_frame"


def test_black_gives_none() -> None:
    frame = np.random.default_rng(0).integers(0, 12, (100, 100, 3), dtype=np.uint8)
    with pytest.raises(NoPatch) as none:
        cut(frame, 0.5, 0.5, FrameSize(10.0, 10.0))
    assert none.value.reason == "black"
    frame[45:55, 45:55] = 40  # a dim light in the dark is something to see
    assert cut(frame, 0.5, 0.5, FrameSize(10.0, 10.0)).rgb.max() == 40


@settings(max_examples=60, deadline=None)
@given(
    x=st.floats(0, 1),
    y=st.floats(0, 1),
    across=st.floats(1.0, 90.0),
    down=st.floats(1.0, 90.0),
    shape=st.tuples(st.integers(90, 300), st.integers(90, 300)),
)
def test_an_even_frame_gives_an_even_patch(
    x: float, y: float, across: float, down: float, shape: tuple[int, int]
) -> None:
    frame = np.full((*shape, 3), (30, 120, 210), np.uint8)
    patch = cut(frame, x, y, from_px_per_degree(shape[1], shape[0], across, down))
    assert patch.rgb.dtype == np.uint8
    assert patch.rgb.flags.c_contiguous
    assert (patch.rgb == (210, 120, 30)).all()
    assert 0.0 <= patch.padded < 1.0


@pytest.mark.parametrize(
    "patch", [np.zeros((50, 50), np.uint8), np.zeros((50, 50, 3), np.float32), np.zeros((3, 50, 50), np.uint8), 3]
)
def test_a_scripts_patch_is_checked(patch: object) -> None:
    with pytest.raises(BadFixation, match="50 x 50 x 3"):
        check_patch(patch)


def test_pixels_per_degree_from_geometry() -> None:
    """The screen of Andersson et al. 2017: 31.5 and 29.9 px/deg."""
    assert px_per_degree(1024, 0.38, 0.67) == pytest.approx(31.5, abs=0.05)
    assert px_per_degree(768, 0.30, 0.67) == pytest.approx(29.9, abs=0.05)
    assert from_screen(0.38, 0.30, 0.67).px_per_degree(1024, 768) == pytest.approx((31.5, 29.9), abs=0.05)


def test_geometry_that_is_none() -> None:
    for wrong in ((0, 1, 1), (1, -1, 1), (1, 1, float("nan"))):
        with pytest.raises(OptionError):
            px_per_degree(*wrong)
    with pytest.raises(OptionError, match="400 degrees"):
        FrameSize(400.0, 20.0)
    with pytest.raises(OptionError, match="both must be positive"):
        from_px_per_degree(10, 10, 0.0, 1.0)


@pytest.mark.parametrize(("text", "pair"), [("31.5", (31.5, None)), ("31.5x29.9", (31.5, 29.9)), ("3 X 4", (3.0, 4.0))])
def test_pairs(text: str, pair: tuple[float, float | None]) -> None:
    assert parse_pair(text, "--px-per-degree") == pair


@pytest.mark.parametrize("text", ["", "x", "3x", "-1", "1x0", "1x2x3", "nan", "e"])
def test_pairs_that_are_none(text: str) -> None:
    with pytest.raises(OptionError, match="--px-per-degree"):
        parse_pair(text, "--px-per-degree")
