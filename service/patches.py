"""A patch as it came over the wire: is it what its description says, and what does it show.

PNG and JPEG tell their size in the first bytes; it is read there before anything is decoded, so a small file
that unfolds into gigapixels is refused unread.
"""

from __future__ import annotations

import struct

import cv2
import numpy as np
from numpy.typing import NDArray

from clients.wire import PATCH_DEGREES, PATCH_HEIGHT_PX, PATCH_WIDTH_PX, ErrorCode, PatchHeader, WireError

DEGREES_TOLERANCE = 0.01
"""How far from 5 degrees, relatively, a patch may say to be."""
SHAPE = (PATCH_HEIGHT_PX, PATCH_WIDTH_PX, 3)
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of a JPEG that carry its size (SOF0 to SOF15 but DHT, JPG, DAC)."""
_JPEG_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})


def decode_patch(header: PatchHeader, data: bytes) -> NDArray[np.uint8]:
    """The patch, uint8 (50, 50, 3) RGB.

    Raises :class:`~clients.wire.WireError` bad_patch, naming what does not match.
    """
    picture = check_patch(header, data)
    return np.frombuffer(data, dtype=np.uint8).reshape(SHAPE) if picture is None else picture


def check_patch(header: PatchHeader, data: bytes) -> NDArray[np.uint8] | None:
    """Raise what :func:`decode_patch` would; the patch only where it had to be decoded to know."""
    if (header.height, header.width) != SHAPE[:2]:
        raise _bad(f"it is {header.height} x {header.width} px; {SHAPE[0]} x {SHAPE[1]} are taken")
    if abs(header.degrees - PATCH_DEGREES) > DEGREES_TOLERANCE * PATCH_DEGREES:
        raise _bad(f"it spans {header.degrees:g} degrees; {PATCH_DEGREES:g} are taken (within 1 %)")
    if header.encoding == "raw":
        size = SHAPE[0] * SHAPE[1] * SHAPE[2]
        if len(data) != size:
            raise _bad(f"raw needs {size} bytes (height x width x 3); frame 3 has {len(data)}")
        return None
    return _decode_picture(header.encoding, data)


def _decode_picture(encoding: str, data: bytes) -> NDArray[np.uint8]:
    size = _png_size(data) if encoding == "png" else _jpeg_size(data)
    if size is None:
        raise _bad(f"frame 3 is no {encoding}")
    if size != SHAPE[:2]:
        raise _bad(f"the {encoding} is {size[0]} x {size[1]} px; {SHAPE[0]} x {SHAPE[1]} are taken")
    try:
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        decoded = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    except cv2.error:
        decoded = None
    if decoded is None or decoded.shape != SHAPE or decoded.dtype != np.uint8:
        raise _bad(f"the {encoding} can't be decoded")
    return np.ascontiguousarray(decoded[:, :, ::-1])


def _png_size(data: bytes) -> tuple[int, int] | None:
    if len(data) < 33 or not data.startswith(_PNG) or data[12:16] != b"IHDR":
        return None
    width, height = struct.unpack(">II", data[16:24])
    return height, width


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    if not data.startswith(b"\xff\xd8"):
        return None
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker in _JPEG_ALONE:
            at += 2
        elif marker in _JPEG_SIZES:
            if at + 9 > len(data):
                return None
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return height, width
        else:
            at += 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    return None


def _bad(detail: str) -> WireError:
    return WireError(ErrorCode.BAD_PATCH, f"patch: {detail}")
