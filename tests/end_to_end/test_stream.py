"""`rjepa stream`, the command, against a real worker: recordings, again, and a machine without a tracker."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tests.end_to_end.conftest import Serve, Serving
from tests.helpers import run_rjepa, start_rjepa, wait_until

FPS = 25.0


def a_video(path: Path, seconds: float = 6.0) -> Path:
    """A drifting field of coloured blobs, 320 x 240."""
    generator = np.random.default_rng(1)
    field = cv2.resize(
        generator.integers(0, 255, (30, 60, 3), dtype=np.uint8), (960, 480), interpolation=cv2.INTER_CUBIC
    )
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (320, 240))
    for frame in range(int(seconds * FPS)):
        writer.write(field[frame : frame + 240, 2 * frame : 2 * frame + 320])
    writer.release()
    return path


def a_gaze_file(path: Path, seconds: float = 6.0, rate_hz: int = 250) -> tuple[Path, int]:
    """Gaze that rests 300 ms at a place and jumps; the file and how many places there were."""
    generator = np.random.default_rng(2)
    rows, places = ["timestamp [ms],x [px],y [px],confidence"], int(seconds / 0.3)
    for place in range(places):
        x, y = generator.uniform(60, 260), generator.uniform(60, 180)
        for sample in range(int(0.3 * rate_hz)):
            at_ms = 1000.0 * (place * 0.3 + sample / rate_hz)
            rows.append(f"{at_ms:.3f},{x + generator.normal(0, 0.1):.3f},{y + generator.normal(0, 0.1):.3f},0.95")
    path.write_text("\n".join(rows) + "\n")
    return path, places


def stream(serving: Serving, *words: str | Path, spool: Path, summary: Path, limit_s: float = 90.0) -> Any:
    done = run_rjepa(
        "stream", *words, f"--ingest={serving.ingest}", f"--spool={spool}", f"--summary={summary}", limit_s=limit_s
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(summary.read_text()), done


def test_a_recording_and_the_same_again(serve: Serve, tmp_path: Path) -> None:
    video = a_video(tmp_path / "scene.avi")
    gaze, places = a_gaze_file(tmp_path / "gaze.csv")
    words = ("recording", f"--video={video}", f"--gaze={gaze}", "--px-per-degree=10", "--speed=max", "--stream=r1")
    with serve() as serving:
        told, _ = stream(serving, *words, spool=tmp_path / "spool", summary=tmp_path / "sum.json")
        assert told["found"] == places
        assert told["sent"] == told["acked"] == told["learned"]
        assert told["sent"] + sum(told["dropped"].values()) == told["found"]
        before = serving.records("r1")
        assert [record["seq"] for record in before] == list(range(told["sent"]))
        again, done = stream(serving, *words, spool=tmp_path / "spool2", summary=tmp_path / "again.json")
        assert again["learned"] == told["learned"]
        assert "already learned" in done.stdout + done.stderr
        assert "--stream" in done.stdout + done.stderr, "it says how to name a new one"
        assert serving.records("r1") == before


def test_another_recording_into_the_same_stream_is_refused(serve: Serve, tmp_path: Path) -> None:
    video = a_video(tmp_path / "scene.avi")
    gaze, _ = a_gaze_file(tmp_path / "gaze.csv")
    lines = gaze.read_text().splitlines()
    other = tmp_path / "other.csv"
    other.write_text("\n".join([lines[0], *lines[76:]]) + "\n")
    words = [f"--video={video}", "--px-per-degree=10", "--speed=max", "--stream=r1"]
    with serve() as serving:
        stream(serving, "recording", f"--gaze={gaze}", *words, spool=tmp_path / "a", summary=tmp_path / "a.json")
        before = serving.records("r1")
        done = run_rjepa(
            "stream", "recording", f"--gaze={other}", *words, f"--ingest={serving.ingest}", f"--spool={tmp_path / 'b'}"
        )
        assert done.returncode != 0
        assert "--stream" in done.stderr
        assert serving.records("r1") == before


def test_a_viewer_of_bergodalbana_at_real_pace(serve: Serve, recordings: Path, tmp_path: Path) -> None:
    folder = recordings / "andersson2017"
    gaze = folder / "gaze_videos" / "TH34_video_BergoDalbana_labelled_RA.mat"
    video = folder / "videos" / "BergoDalbana.avi"
    with serve() as serving:
        told, _ = stream(
            serving,
            "recording",
            f"--video={video}",
            f"--gaze={gaze}",
            "--stream=bergo",
            spool=tmp_path / "spool",
            summary=tmp_path / "sum.json",
        )
        assert told["found"] > 10
        assert told["sent"] == told["acked"] == told["learned"] > 10
        records = serving.records("bergo")
        assert [record["seq"] for record in records] == list(range(told["sent"]))
        assert all(record["prediction_error"] is not None for record in records[1:] if record["skipped"] is None)


def test_an_observer_through_a_crash_of_the_worker(serve: Serve, tmp_path: Path) -> None:
    """The worker is killed under a live client and comes back on the same address: nothing is missing, none twice."""
    video = a_video(tmp_path / "scene.avi")
    with serve() as serving:
        ingest = serving.ingest
        ports = [f"--ingest={ingest}", f"--publish={serving.publish}"]
        client = start_rjepa(
            "stream",
            "simulated",
            str(video),
            "--fixations=120",
            "--speed=10",
            "--stream=live",
            f"--ingest={ingest}",
            f"--spool={tmp_path / 'spool'}",
            f"--summary={tmp_path / 'sum.json'}",
            logs=tmp_path / "client",
        )
        with client as running:
            wait_until(
                lambda: serving.get("/v1/streams")["streams"] and serving.get("/v1/streams/live")["learned"] > 20,
                60,
                "20",
            )
            os.killpg(serving.process.pid, signal.SIGKILL)
            serving.process.process.wait(10)
            with serve(*ports) as back:
                assert running.wait(90) == 0, running.stderr()[-2000:]
                told = json.loads((tmp_path / "sum.json").read_text())
                assert told["sent"] == told["acked"] == told["learned"] == 120
                assert [record["seq"] for record in back.records("live")] == list(range(120))


def test_bad_input_is_one_line_and_the_way_out(tmp_path: Path) -> None:
    video, empty = a_video(tmp_path / "scene.avi"), tmp_path / "empty.avi"
    empty.write_bytes(b"")
    gaze, _ = a_gaze_file(tmp_path / "gaze.csv")
    columns = tmp_path / "columns.csv"
    columns.write_text("when,where\n1,2\n")
    for words, told in (
        (["--video", empty, "--gaze", gaze, "--px-per-degree=10"], "empty.avi"),
        (["--video", video, "--gaze", columns, "--px-per-degree=10"], "columns.csv"),
        (["--video", video, "--gaze", gaze], "--px-per-degree"),
        (["--video", tmp_path / "none.avi", "--gaze", gaze, "--px-per-degree=10"], "none.avi"),
        (["--video", video, "--gaze", gaze, "--px-per-degre=10"], "--px-per-degre"),
    ):
        done = run_rjepa("stream", "recording", *words)
        assert done.returncode not in (0, 1), done.stderr
        assert told in done.stderr
        assert "Traceback" not in done.stderr
