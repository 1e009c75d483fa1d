"""What a client costs the acquisition computer: 1280 x 720 at 30 frames/s and gaze at 200 Hz, at real pace."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from model.deadleaves import dead_leaves
from tests.clients.peer import running_peer
from tests.helpers import start_rjepa, wait_until

pytestmark = pytest.mark.soak

LENGTH_S = 60.0
WIDTH, HEIGHT, FPS, GAZE_HZ, PLACE_S = 1280, 720, 30.0, 200, 0.3


def a_recording(folder: Path, seconds: float) -> tuple[Path, Path]:
    """Dead leaves drifting, as motion JPEG like a world camera's; gaze that rests 0.3 s at a place and jumps."""
    tiles = dead_leaves(48, seed=5)
    field = np.concatenate([np.concatenate(list(tiles[row * 8 : row * 8 + 8]), axis=1) for row in range(6)], axis=0)
    field = cv2.resize(field, (2 * WIDTH, 2 * HEIGHT), interpolation=cv2.INTER_CUBIC)
    writer = cv2.VideoWriter(str(folder / "world.avi"), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (WIDTH, HEIGHT))
    for number in range(round(seconds * FPS)):
        x, y = number * 5 % WIDTH, number * 3 % HEIGHT
        writer.write(np.ascontiguousarray(field[y : y + HEIGHT, x : x + WIDTH]))
    writer.release()
    generator = np.random.default_rng(6)
    each = round(PLACE_S * GAZE_HZ)
    places = generator.uniform((100, 100), (WIDTH - 100, HEIGHT - 100), (round(seconds / PLACE_S), 2))
    where = places.repeat(each, axis=0)
    where += generator.normal(0.0, 0.2, where.shape)
    table = np.column_stack([1000.0 * np.arange(len(where)) / GAZE_HZ, where])
    gaze = folder / "gaze.csv"
    np.savetxt(gaze, table, fmt="%.3f", delimiter=",", header="timestamp [ms],x [px],y [px]", comments="")
    return folder / "world.avi", gaze


def cpu_s(pid: int) -> float:
    """Processor time of all a process's threads (clock_getcpuclockid(3))."""
    return time.clock_gettime(~pid << 3 | 2)


def measure(folder: Path, seconds: float) -> None:
    """Print the client's processor time a second of the recording, from a fifth of it to nine tenths."""
    video, gaze = a_recording(folder, seconds)
    with running_peer() as peer:
        words = ["stream", "recording", f"--video={video}", f"--gaze={gaze}", "--px-per-degree=13.9", "--stream=live"]
        spool = f"--spool={folder / 'spool'}"
        with start_rjepa(*words, f"--ingest={peer.address}", spool, logs=folder / "client") as client:
            marks = []
            for share in (0.2, 0.9):
                count = int(share * seconds / PLACE_S)
                wait_until(
                    lambda count=count: len(peer.messages("live")) >= count, 20 * seconds + 60, f"{count} fixations"
                )
                marks.append((count, time.perf_counter(), cpu_s(client.pid)))
            assert client.wait(20 * seconds + 60) == 0, client.stderr()[-3000:]
        assert len(peer.messages("live")) >= 0.95 * seconds / PLACE_S
    (begin, begin_s, begin_cpu_s), (end, end_s, end_cpu_s) = marks
    used_s, recorded_s = end_cpu_s - begin_cpu_s, (end - begin) * PLACE_S
    what = f"client of {WIDTH} x {HEIGHT} at {FPS:.0f} frames/s and {GAZE_HZ} Hz gaze"
    how = f"{used_s:.1f} s of processor time for {recorded_s:.1f} s of recording, in {end_s - begin_s:.1f} s"
    print(f"\n{what}: {used_s / recorded_s:.2f} of a core ({how})", flush=True)


def test_what_a_live_client_costs(tmp_path: Path) -> None:
    measure(tmp_path, LENGTH_S)
