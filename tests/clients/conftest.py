from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.clients.peer import Peer, running_peer

LSL_CONFIGURATION = """
[ports]
IPv6 = disable
[multicast]
ResolveScope = machine
[lab]
KnownPeers = {{127.0.0.1}}
SessionID = rjepa-tests-{pid}
"""


@pytest.fixture(scope="session")
def lsl_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LSL's configuration: this machine only, and nobody else's session. The library reads one, once a process."""
    pylsl = pytest.importorskip("pylsl", reason="pylsl is not installed: pip install 'rjepa[lsl]'")
    path = tmp_path_factory.mktemp("lsl") / "lsl_api.cfg"
    path.write_text(LSL_CONFIGURATION.format(pid=os.getpid()))
    pylsl.util.set_config_filename(str(path))
    return path


@pytest.fixture
def peer() -> Iterator[Peer]:
    """A worker that speaks the wire on a real socket, and learns nothing."""
    with running_peer() as running:
        yield running


def write_video(path: Path, frames: list[np.ndarray], rate: float = 25.0) -> Path:
    """``frames``: uint8 BGR, all of one size."""
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), rate, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """4 s at 25 frames/s, 320 x 240: coloured blobs that move."""
    generator = np.random.default_rng(0)
    blobs = (
        generator.uniform(0, 1, (12, 2)),
        generator.uniform(-0.1, 0.1, (12, 2)),
        generator.integers(60, 255, (12, 3)),
    )
    frames = []
    for number in range(100):
        frame = np.full((240, 320, 3), 70, np.uint8)
        for place, speed, colour in zip(*blobs, strict=True):
            x, y = ((place + speed * number / 25) % 1.0) * (320, 240)
            cv2.circle(frame, (int(x), int(y)), 18, [int(c) for c in colour], -1)
        frames.append(frame)
    return write_video(tmp_path / "blobs.avi", frames)


@pytest.fixture
def gaze(tmp_path: Path) -> Path:
    """3.6 s at 250 Hz over the video: 9 fixations of 380 ms, pixels, seconds; the sixth is off the frame."""
    places = [(60, 60), (200, 80), (100, 200), (280, 180), (160, 120), (400, 120), (40, 160), (240, 40), (120, 100)]
    generator = np.random.default_rng(1)
    lines = ["timestamp,x,y,confidence"]
    for at in range(900):
        x, y = np.array(places[at // 100]) + generator.normal(0, 0.05, 2)
        if at % 100 < 5 and at >= 100:  # a saccade of 20 ms
            share = (at % 100) / 5
            before = np.array(places[at // 100 - 1])
            x, y = before + share * (np.array([x, y]) - before)
        lines.append(f"{100 + at * 0.004:.3f},{x:.3f},{y:.3f},0.99")
    path = tmp_path / "viewer.csv"
    path.write_text("\n".join(lines) + "\n")
    return path
