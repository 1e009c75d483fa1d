"""Bytes of a frame to pixels: what Pupil Capture publishes, and what cameras give."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from clients.frames import BrokenFrame
from clients.video import opencv

UInt8 = NDArray[np.uint8]
FrameFormat = Literal["jpeg", "yuv", "bgr", "gray"]
FORMATS: tuple[FrameFormat, ...] = ("jpeg", "yuv", "bgr", "gray")


def decode(kind: FrameFormat, data: bytes, width_px: int, height_px: int) -> UInt8:
    """uint8 BGR (height, width, 3). Raises :class:`BrokenFrame` where bytes and description differ."""
    if kind == "jpeg":
        return _jpeg(data, width_px, height_px)
    pixels = np.frombuffer(data, np.uint8)
    if kind == "yuv":
        return _yuv(pixels, width_px, height_px)
    channels = 3 if kind == "bgr" else 1
    if pixels.size != width_px * height_px * channels:
        raise BrokenFrame(f"{pixels.size} bytes are no {kind} of {width_px} x {height_px}")
    shaped = pixels.reshape(height_px, width_px, channels)
    return shaped if channels == 3 else np.repeat(shaped, 3, axis=2)


def _jpeg(data: bytes, width_px: int, height_px: int) -> UInt8:
    cv2: Any = opencv()
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error:
        bgr = None
    if bgr is None or bgr.shape != (height_px, width_px, 3):
        found = "no JPEG" if bgr is None else f"a JPEG of {bgr.shape[1]} x {bgr.shape[0]}"
        raise BrokenFrame(f"{found} where {width_px} x {height_px} was announced")
    decoded: UInt8 = bgr
    return decoded


def _yuv(pixels: UInt8, width_px: int, height_px: int) -> UInt8:
    """Planes Y, U and V one after the other, full range; how coarse U and V are follows from the length."""
    cv2: Any = opencv()
    whole, half_width, half_height = width_px * height_px, (width_px + 1) // 2, (height_px + 1) // 2
    shapes = [(height_px, width_px), (height_px, half_width), (half_height, half_width)]
    shape = next((s for s in shapes if pixels.size == whole + 2 * s[0] * s[1]), None)
    if shape is None:
        raise BrokenFrame(f"{pixels.size} bytes are no yuv of {width_px} x {height_px}, 4:4:4, 4:2:2 or 4:2:0")
    u, v = pixels[whole:].reshape(2, *shape)
    planes = [pixels[:whole].reshape(height_px, width_px)]
    for plane in (v, u):
        planes.append(cv2.resize(plane, (width_px, height_px), interpolation=cv2.INTER_LINEAR))
    converted: UInt8 = cv2.cvtColor(np.dstack(planes), cv2.COLOR_YCrCb2BGR)
    return converted
