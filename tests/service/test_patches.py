from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest

from clients.wire import ErrorCode, PatchHeader, WireError
from service.patches import decode_patch
from tests.helpers import patches

PATCH = patches(1)[0]


def header(encoding: str = "raw", **more: object) -> PatchHeader:
    fields = {"encoding": encoding, "height": 50, "width": 50, "channels": 3, "color": "rgb", "degrees": 5.0} | more
    return PatchHeader.model_validate(fields)


def picture(kind: str, pixels: np.ndarray) -> bytes:
    return cv2.imencode(kind, pixels[:, :, ::-1])[1].tobytes()


def test_raw_and_png_give_the_same_pixels() -> None:
    assert np.array_equal(decode_patch(header(), PATCH.tobytes()), PATCH)
    assert np.array_equal(decode_patch(header("png"), picture(".png", PATCH)), PATCH)


def test_jpeg_keeps_colours_in_order() -> None:
    red = np.zeros((50, 50, 3), np.uint8)
    red[:, :, 0] = 200
    decoded = decode_patch(header("jpeg"), picture(".jpg", red))
    assert np.abs(decoded.astype(int) - red).max() < 10


def test_a_little_more_or_less_than_5_degrees() -> None:
    decode_patch(header(degrees=4.96), PATCH.tobytes())
    decode_patch(header(degrees=5.04), PATCH.tobytes())


def png_that_says(width: int, height: int) -> bytes:
    """A small PNG whose header promises a large picture."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(20_000))) + chunk(b"IEND", b"")
    )


GOOD_PNG = picture(".png", PATCH)
GOOD_JPEG = picture(".jpg", PATCH)


@pytest.mark.parametrize(
    ("described", "data", "told"),
    [
        (header(), PATCH.tobytes()[:-1], "7500 bytes"),
        (header(), b"", "7500 bytes"),
        (header(height=49), PATCH.tobytes(), "49 x 50"),
        (header(width=65536), PATCH.tobytes(), "65536"),
        (header(degrees=5.1), PATCH.tobytes(), "5.1 degrees"),
        (header(degrees=1.0), PATCH.tobytes(), "1 degrees"),
        (header("png"), PATCH.tobytes(), "no png"),
        (header("jpeg"), PATCH.tobytes(), "no jpeg"),
        (header("png"), GOOD_JPEG, "no png"),
        (header("jpeg"), GOOD_PNG, "no jpeg"),
        (header("png"), png_that_says(30_000, 30_000), "30000 x 30000"),
        (header("png"), picture(".png", np.zeros((50, 51, 3), np.uint8)), "50 x 51"),
        (header("jpeg"), picture(".jpg", np.zeros((51, 50, 3), np.uint8)), "51 x 50"),
        (header("png"), GOOD_PNG[:40], "decoded"),
        (header("png"), GOOD_PNG[:60] + bytes(200) + GOOD_PNG[260:], "decoded"),
        (header("jpeg"), b"\xff\xd8\xff", "no jpeg"),
        (header("jpeg"), b"\xff\xd8" + b"\xff" * 5000, "no jpeg"),
        (header("jpeg"), b"\xff\xd8\xff\xc0\x00\x11\x08\x00\x32\x00\x32\x03", "decoded"),
    ],
)
def test_what_does_not_match_its_description(described: PatchHeader, data: bytes, told: str) -> None:
    with pytest.raises(WireError) as caught:
        decode_patch(described, data)
    assert caught.value.code is ErrorCode.BAD_PATCH
    assert told in caught.value.detail


def test_no_bytes_end_the_process() -> None:
    """A thousand damaged pictures: a patch or bad_patch, nothing else."""
    generator = np.random.default_rng(0)
    for number in range(1_000):
        good = (GOOD_PNG, GOOD_JPEG)[number % 2]
        data = bytearray(good[: generator.integers(1, len(good) + 1)])
        for at in generator.integers(0, len(data), 3):
            data[at] = generator.integers(256)
        try:
            decoded = decode_patch(header(("png", "jpeg")[number % 2]), bytes(data))
        except WireError as error:
            code = error.code
            assert code is ErrorCode.BAD_PATCH
        else:
            assert decoded.shape == (50, 50, 3)
