"""Which cameras of this computer give frames, and how many a second."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from clients.doctor_finding import Finding, State
from clients.glimpse import UInt8
from clients.video import opencv

LOOK_S = 0.7
WHAT = "camera"


@dataclass(frozen=True)
class CamerasSeen:
    """What was found, and the last frame of the first camera that gave one: uint8 BGR (height, width, 3)."""

    findings: list[Finding]
    bgr: UInt8 | None = None
    name: str = ""


def ask_cameras(count: int) -> CamerasSeen:
    """Open the first ``count`` cameras, one after the other, and look at each for a moment."""
    findings, shown, name = [], None, ""
    for number in range(count):
        capture = opencv().VideoCapture(number)
        try:
            if not capture.isOpened():
                continue
            finding, bgr = _look(capture, number)
            findings.append(finding)
            if shown is None and bgr is not None:
                shown, name = bgr, f"camera {number}"
        finally:
            capture.release()
    if not findings:
        told = f"none of the first {count} can be opened" if count else "not looked for (--cameras 0)"
        remedy = "needed only without a scene camera: plug one in, and close the program that has it open"
        findings = [Finding(WHAT, State.ABSENT, told, remedy if count else None)]
    return CamerasSeen(findings, shown, name)


def _look(capture: Any, number: int) -> tuple[Finding, UInt8 | None]:
    """Frames for a while; the first one, which many cameras take long for, is not counted."""
    bgr: UInt8 | None = None
    arrived, bgr = capture.read()
    begun, count = time.monotonic(), 0
    while arrived and time.monotonic() - begun < LOOK_S:
        arrived, frame = capture.read()
        if arrived:
            bgr, count = frame, count + 1
    if bgr is None or count == 0:
        told = f"{number} opens and gives no frames"
        return Finding(WHAT, State.TROUBLE, told, "does another program have it? Close that, or plug it in anew"), None
    rate_hz = count / (time.monotonic() - begun)
    told = f"{number}: {bgr.shape[1]} x {bgr.shape[0]} px, {rate_hz:.1f} frames/s; px/deg must be given"
    return Finding(WHAT, State.OK, told), bgr
