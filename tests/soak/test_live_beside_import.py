"""How long a live participant's fixation takes while a long recording is imported as fast as it goes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from model.deadleaves import dead_leaves
from tests.helpers import PlainClient, Running, start_rjepa
from tests.soak.test_fuzz_wire import Live, live

pytestmark = pytest.mark.soak

RECORDED = 10_000
"""Fixations of the recording, 0.3 s each."""
PLACE_S, RATE_HZ, FPS = 0.3, 60, 10.0
ALONE = 240
"""Fixations of the live stream before the import begins: a minute."""
EVERY_S = 0.25
PATCHES = dead_leaves(512, seed=4)


def long_recording(folder: Path, places: int) -> tuple[Path, Path]:
    """A video of large dead leaves drifting, and gaze that rests at ``places`` places of it one after the other."""
    tiles = dead_leaves(48, seed=5)
    field = np.concatenate([np.concatenate(list(tiles[row * 8 : row * 8 + 8]), axis=1) for row in range(6)], axis=0)
    field = cv2.resize(field, (1280, 960), interpolation=cv2.INTER_CUBIC)
    video = folder / "long.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (320, 240))
    for number in range(int(places * PLACE_S * FPS)):
        x, y = (number * 3) % 960, (number * 2) % 720
        writer.write(np.ascontiguousarray(field[y : y + 240, x : x + 320]))
    writer.release()
    generator = np.random.default_rng(6)
    each = round(PLACE_S * RATE_HZ)
    where = generator.uniform((50, 50), (270, 190), (places, 2)).repeat(each, axis=0)
    where += generator.normal(0.0, 0.05, where.shape)
    at_ms = 1000.0 * np.arange(len(where)) / RATE_HZ
    gaze = folder / "long.csv"
    table = np.column_stack([at_ms, where])
    np.savetxt(gaze, table, fmt="%.3f", delimiter=",", header="timestamp [ms],x [px],y [px]", comments="")
    return video, gaze


class Participant:
    """A live stream, a fixation every quarter of a second whatever comes back, and how long each took."""

    def __init__(self, client: PlainClient) -> None:
        self._client = client
        client.hello("live")
        self._sent_at: list[float] = []
        self.took_ms: list[float] = []

    def look(self, enough: Callable[[], bool]) -> list[float]:
        """Go on until ``enough`` and all is learned: milliseconds from send to ``learned`` of each fixation."""
        first, due = len(self.took_ms), time.perf_counter()
        while not enough() or len(self.took_ms) < len(self._sent_at):
            now = time.perf_counter()
            if now >= due and not enough():
                seq = len(self._sent_at)
                self._client.fixation("live", seq, PATCHES[seq * 199 % len(PATCHES)])
                self._sent_at.append(now)
                due += EVERY_S
            self._hear(max(0.001, due - time.perf_counter()))
        return self.took_ms[first:]

    def _hear(self, limit_s: float) -> None:
        if not self._client.socket.poll(max(1, int(limit_s * 1000))):
            waits = self._sent_at[len(self.took_ms) :]
            assert not waits or time.perf_counter() - waits[0] < 60.0, "a minute and not learned"
            return
        kind, told = self._client.receive()
        assert kind in ("ack", "learned"), (kind, told)
        if kind == "learned":
            assert told["seq"] == len(self.took_ms)
            self.took_ms.append(1000.0 * (time.perf_counter() - self._sent_at[told["seq"]]))


def told(name: str, took_ms: list[float]) -> str:
    median, p99 = np.percentile(took_ms, (50, 99))
    return (
        f"{name}: {len(took_ms)} live fixations, median {median:.0f} ms, p99 {p99:.0f} ms, worst {max(took_ms):.0f} ms"
    )


def imported(worker: Live, folder: Path, recording: tuple[Path, Path]) -> tuple[list[str | Path], Path]:
    """The words of ``rjepa stream`` for ``recording``, and where it writes its summary."""
    video, gaze = recording
    words: list[str | Path] = ["stream", "recording", f"--video={video}", f"--gaze={gaze}", "--px-per-degree=12"]
    words += ["--speed=max", "--stream=recorded", f"--ingest={worker.address}", f"--spool={folder / 'spool'}"]
    return [*words, f"--summary={folder / 'summary.json'}"], folder / "summary.json"


def test_an_import_as_fast_as_it_goes_leaves_a_live_stream_its_turn(data_dir: Path, tmp_path: Path) -> None:
    recording = long_recording(tmp_path, RECORDED)
    with live(data_dir, tmp_path / "logs") as worker, PlainClient(worker.address) as client:
        participant = Participant(client)
        alone = participant.look(lambda: len(participant.took_ms) >= ALONE)
        print(told("alone", alone), flush=True)
        words, summary = imported(worker, tmp_path, recording)
        begun = time.perf_counter()
        with start_rjepa(*words, logs=tmp_path / "import") as process:
            beside = participant.look(lambda: not process.alive())
            took_s = time.perf_counter() - begun
            _ended_well(process)
        found = json.loads(summary.read_text())
        print(told("beside the import", beside))
        print(f"imported {found['learned']} of {found['found']} fixations in {took_s:.0f} s", flush=True)
        assert found["learned"] == found["sent"] == found["acked"]
        assert found["sent"] > 0.95 * RECORDED, found
        assert worker.process.terminate(60.0) == 0, worker.process.stderr()[-3000:]


def _ended_well(process: Running) -> None:
    assert process.wait(60.0) == 0, process.stderr()[-3000:]
