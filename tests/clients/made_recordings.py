"""The same five fixations, written as every format has them: small files of the layout that the real ones have."""

from __future__ import annotations

import csv
import gzip
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import msgpack
import numpy as np
import scipy.io

from clients.neon_native import EVENT
from tests.clients.test_patches import checkerboard

PLACES = ((0.5, 0.5), (0.431, 0.517), (0.57, 0.44), (0.45, 0.55), (0.52, 0.48))
STEP_NS, EACH_NS, SACCADE_NS = 4_000_000, 400_000_000, 20_000_000
BEGIN_NS = 1_000_000_000_000
RATE_HZ = 250
FRAME_NS = 100_000_000
DEGREE = 2 * math.tan(math.radians(0.5))
"""Of a camera with focal length 1."""


@dataclass(frozen=True)
class Planted:
    onset_ns: int
    end_ns: int
    x: float
    y: float


PLANTED = [
    Planted(BEGIN_NS + n * EACH_NS + (SACCADE_NS if n else 0), BEGIN_NS + (n + 1) * EACH_NS - STEP_NS, x, y)
    for n, (x, y) in enumerate(PLACES)
]


def samples() -> list[tuple[int, float, float]]:
    """(time in ns, x, y as fractions of the frame), 250 Hz, 2 s."""
    generator = np.random.default_rng(3)
    found = []
    for time_ns in range(BEGIN_NS, BEGIN_NS + len(PLACES) * EACH_NS, STEP_NS):
        at, into = divmod(time_ns - BEGIN_NS, EACH_NS)
        x, y = PLACES[at] + generator.normal(0, 2e-4, 2)
        if at and into < SACCADE_NS:
            share = into / SACCADE_NS
            x, y = share * np.array([x, y]) + (1 - share) * np.array(PLACES[at - 1])
        found.append((time_ns, float(x), float(y)))
    return found


def frame_times() -> list[int]:
    """Of a video that begins 50 ms before the gaze, 10 frames a second, not quite evenly."""
    jitter = np.random.default_rng(4).integers(-20_000_000, 20_000_000, 22)
    return [BEGIN_NS - 50_000_000 + n * FRAME_NS + int(jitter[n]) * (n > 0) for n in range(22)]


@dataclass(frozen=True)
class Made:
    """``words``: what to give ``rjepa stream recording``; ``px_per_degree``: of the checkerboard that it shows."""

    format: str
    path: Path
    words: tuple[str, ...]
    tracker: bool
    size_px: tuple[int, int]
    px_per_degree: tuple[float, float]


def board(path: Path, size_px: tuple[int, int], px_per_degree: tuple[float, float]) -> Path:
    """A checkerboard with fields of one degree: a picture, or a video of 22 frames."""
    picture = checkerboard(*size_px, *px_per_degree)
    if path.suffix == ".png":
        assert cv2.imwrite(str(path), picture)
        return path
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, size_px)
    assert writer.isOpened()
    for _ in frame_times():
        writer.write(picture)
    writer.release()
    return path


def table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]], delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])
    return path


def pupil_player(folder: Path) -> Made:
    size, focal = (640, 480), 620.0
    export = folder / "000" / "exports" / "000"
    export.mkdir(parents=True)
    matrix = [[focal, 0.0, 320.0], [0.0, focal, 240.0], [0.0, 0.0, 1.0]]
    told = {"version": 1, str(size): {"camera_matrix": matrix, "dist_coefs": [[0.0] * 5], "cam_type": "radial"}}
    (folder / "000" / "world.intrinsics").write_bytes(msgpack.packb(told))
    rows = [(f"{t / 1e9:.6f}", 0, 0.98, x, 1 - y, "") for t, x, y in samples()]
    header = ["gaze_timestamp", "world_index", "confidence", "norm_pos_x", "norm_pos_y", "base_data"]
    table(export / "gaze_positions.csv", header, rows)
    header = ["id", "start_timestamp", "duration", "start_frame_index", "norm_pos_x", "norm_pos_y", "dispersion"]
    rows = [
        (n, f"{p.onset_ns / 1e9:.6f}", (p.end_ns - p.onset_ns) / 1e6, 0, p.x, 1 - p.y, 0.3)
        for n, p in enumerate(PLANTED)
    ]  # type: ignore[misc]
    table(export / "fixations.csv", header, rows)
    times = [(f"{t / 1e9:.6f}", n) for n, t in enumerate(frame_times())]
    table(export / "world_timestamps.csv", ["# timestamps [seconds]", "pts"], times)
    board(export / "world.mp4", size, (focal * DEGREE, focal * DEGREE))
    return Made("pupil-player", export, (), True, size, (focal * DEGREE, focal * DEGREE))


def neon(folder: Path) -> Made:
    size, focal = (1600, 1200), 890.0
    folder = folder / "2024-10-10_09-41-45-1829668d"
    folder.mkdir()
    (folder / "info.json").write_text(json.dumps({"app_version": "2.9.40-prod", "gaze_offset": [0.0, 0.0]}))
    seen = samples()
    half = len(seen) // 2
    for part, held in enumerate((seen[:half], seen[half:]), start=1):
        np.array([t for t, _, _ in held], "<u8").tofile(folder / f"gaze ps{part}.time")
        np.array([(x * size[0], y * size[1]) for _, x, y in held], "<f4").tofile(folder / f"gaze ps{part}.raw")
        np.full(len(held), 255, "u1").tofile(folder / f"worn ps{part}.raw")
    events = np.zeros(len(PLANTED) + 1, EVENT)
    for event, p in zip(events, PLANTED, strict=False):
        event["event_type"], event["start_timestamp_ns"], event["end_timestamp_ns"] = 1, p.onset_ns, p.end_ns
        event["mean_gaze_x"], event["mean_gaze_y"] = p.x * size[0], p.y * size[1]
    events.tofile(folder / "fixations ps1.raw")
    events["end_timestamp_ns"].astype("<u8").tofile(folder / "fixations ps1.time")
    matrix = np.array([[focal, 0, 800], [0, focal, 600], [0, 0, 1]], "<f8")
    (folder / "calibration.bin").write_bytes(b"\x01" + b"404641" + matrix.tobytes() + bytes(724))
    np.array(frame_times(), "<u8").tofile(folder / "Neon Scene Camera v1 ps1.time")
    board(folder / "Neon Scene Camera v1 ps1.mp4", size, (focal * DEGREE, focal * DEGREE))
    return Made("neon", folder, (), True, size, (focal * DEGREE, focal * DEGREE))


def neon_export(folder: Path) -> Made:
    size, focal = (1600, 1200), 890.0
    folder = folder / "timeseries"
    folder.mkdir()
    ids = ("s", "r")
    header = ["section id", "recording id", "timestamp [ns]", "gaze x [px]", "gaze y [px]", "worn", "fixation id"]
    table(folder / "gaze.csv", header, [(*ids, t, x * size[0], y * size[1], "1.0", "") for t, x, y in samples()])
    header = ["section id", "recording id", "fixation id", "start timestamp [ns]", "end timestamp [ns]"]
    header += ["duration [ms]", "fixation x [px]", "fixation y [px]"]
    rows = [(*ids, n, p.onset_ns, p.end_ns, 0, p.x * size[0], p.y * size[1]) for n, p in enumerate(PLANTED)]
    table(folder / "fixations.csv", header, rows)
    times = [(*ids, t) for t in frame_times()]
    table(folder / "world_timestamps.csv", ["section id", "recording id", "timestamp [ns]"], times)
    matrix = [[focal, 0.0, 800.0], [0.0, focal, 600.0], [0.0, 0.0, 1.0]]
    (folder / "scene_camera.json").write_text(json.dumps({"camera_matrix": matrix, "serial_number": "404641"}))
    board(folder / "61b7-scene.mp4", size, (focal * DEGREE, focal * DEGREE))
    return Made("neon-export", folder, (), True, size, (focal * DEGREE, focal * DEGREE))


def eyelink(folder: Path) -> Made:
    size, res = (1680, 1050), (41.0, 45.5)
    begin = BEGIN_NS // 1_000_000
    lines = ["** CONVERTED FROM anna.edf using edfapi 4.2", f"MSG\t{begin - 9} GAZE_COORDS 0.00 0.00 1679.00 1049.00"]
    lines += [f"MSG\t{begin - 4} SYNCTIME video on", f"START\t{begin} \tLEFT\tRIGHT\tSAMPLES\tEVENTS"]
    lines += ["EVENTS\tGAZE\tLEFT\tRIGHT\tRATE\t250.00", "SAMPLES\tGAZE\tLEFT\tRIGHT\tRATE\t250.00\tTRACKING\tCR"]
    for at, (t, x, y) in enumerate(samples()):
        left = "   .\t   .\t    0.0" if at < 10 else f" {x * size[0] - 60:.2f}\t {y * size[1]:.2f}\t 1000.0"
        lines.append(f"{t // 1_000_000}\t{left}\t {x * size[0]:.2f}\t {y * size[1]:.2f}\t 1000.0\t.....")
    for p in PLANTED:
        first, last = p.onset_ns // 1_000_000, p.end_ns // 1_000_000
        lines.append(f"EFIX R   {first}\t{last}\t{last - first + 1}\t {p.x * size[0]:.1f}\t {p.y * size[1]:.1f}\t 1000")
    lines.append(f"END\t{begin + 2000} \tSAMPLES\tEVENTS\tRES\t {res[0]:.2f}\t {res[1]:.2f}")
    path = folder / "anna.asc"
    path.write_text("\n".join(lines) + "\n")
    picture = board(folder / "board.png", size, res)
    return Made("eyelink", path, (f"--video={picture}",), True, size, res)


def bids(folder: Path) -> Made:
    size = (1024, 768)
    px = tuple(n / m * 0.6 * DEGREE for n, m in zip(size, (0.386, 0.29), strict=True))
    stem = "sub-01_task-search_run-1"
    session = folder / "sub-01" / "beh"
    session.mkdir(parents=True)
    (folder / "dataset_description.json").write_text('{"Name": "made", "BIDSVersion": "1.11.0"}')
    shown = {"ScreenDistance": 0.6, "ScreenSize": [0.386, 0.29], "ScreenResolution": list(size)}
    (folder / "task-search_events.json").write_text(json.dumps({"StimulusPresentation": shown}))
    rows = [f"{t // 1_000_000}\t{x * size[0]:.3f}\t{y * size[1]:.3f}\tn/a" for t, x, y in samples()]
    events = [f"{p.onset_ns // 1_000_000}\t{(p.end_ns - p.onset_ns) / 1e9:.3f}\tfixation\tn/a" for p in PLANTED] + [
        f"{BEGIN_NS // 1_000_000}\tn/a\tn/a\tvideo on"
    ]
    sidecar = {
        "PhysioType": "eyetrack",
        "SamplingFrequency": RATE_HZ,
        "Columns": ["timestamp", "x_coordinate", "y_coordinate", "pupil_size"],
        "RecordedEye": "right",
        "SampleCoordinateSystem": "gaze-on-screen",
        "timestamp": {"Units": "ms"},
        "x_coordinate": {"Units": "pixel"},
        "y_coordinate": {"Units": "pixel"},
    }
    told = {"Columns": ["onset", "duration", "trial_type", "message"], "OnsetSource": "timestamp"}
    for name, text, described in (("physio", rows, sidecar), ("physioevents", events, told)):
        path = session / f"{stem}_recording-eye1_{name}.tsv.gz"
        path.write_bytes(gzip.compress(("\n".join(text) + "\n").encode()))
        (session / f"{stem}_recording-eye1_{name}.json").write_text(json.dumps(described))
    picture = board(folder / "board.png", size, px)  # type: ignore[arg-type]
    return Made("bids", session, (f"--video={picture}",), True, size, px)  # type: ignore[arg-type]


def tobii(folder: Path) -> Made:
    size, screen_mm, far_mm = (1920, 1080), (527.0, 296.0), 650.0
    px = tuple(n / m * far_mm * DEGREE for n, m in zip(size, screen_mm, strict=True))
    header = ["Recording timestamp [μs]", "Sensor", "Participant name", "Recording resolution height [px]"]
    header += ["Recording resolution width [px]", "Event", "Gaze point X [DACS px]", "Gaze point Y [DACS px]"]
    header += ["Eye movement type", "Eye movement type index"]
    rows: list[tuple[object, ...]] = [(BEGIN_NS // 1000, "", "P1", 1080, 1920, "VideoStimulusStart", "", "", "", "")]
    for t, x, y in samples():
        at = next((n for n, p in enumerate(PLANTED) if p.onset_ns <= t <= p.end_ns), None)
        kind = ("Fixation", at + 1) if at is not None else ("Saccade", 1)
        rows.append((t // 1000, "Eye Tracker", "P1", 1080, 1920, "", round(x * 1920), round(y * 1080), *kind))
        rows.append((t // 1000 + 700, "Mouse", "P1", 1080, 1920, "", "", "", *kind))
    path = table(folder / "P1.tsv", header, rows, "\t")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    picture = board(folder / "board.png", size, px)  # type: ignore[arg-type]
    words = (f"--video={picture}", "--screen-mm=527x296", "--distance-mm=650")
    return Made("tobii", path, words, True, size, px)  # type: ignore[arg-type]


def studyforrest(folder: Path) -> Made:
    size = (1280, 546)
    px = (1280 / 23.75, 546 / 10.13)
    header = ["onset", "duration", "label", "start_x", "start_y", "end_x", "end_y", "amp"]
    rows: list[tuple[object, ...]] = []
    for n, p in enumerate(PLANTED):
        onset_s, x, y = (p.onset_ns - BEGIN_NS) / 1e9, p.x * 1280, p.y * 546
        label, after = ("PURS", 90) if n == 2 else ("FIXA", 0)
        rows.append((f"{onset_s:.3f}", f"{(p.end_ns - p.onset_ns) / 1e9:.3f}", label, x, y, x + after, y, 0.1))
        rows.append((f"{onset_s + 0.38:.3f}", "0.020", "SACC", x, y, x, y, 3.0))
    path = table(folder / "sub-01_run-1_events.tsv", header, rows, "\t")
    picture = board(folder / "board.png", size, px)
    return Made("studyforrest", path, (f"--video={picture}",), True, size, px)


def andersson(folder: Path) -> Made:
    size = (1024, 768)
    px = tuple(n / m * 0.67 * DEGREE for n, m in zip(size, (0.38, 0.30), strict=True))
    rows = [(t / 1000, 0.0, 0.0, x * size[0], y * size[1], 1) for t, x, y in samples()]
    data: dict[str, Any] = {"screenDim": [0.38, 0.30], "screenRes": list(size), "viewDist": 0.67, "sampFreq": 250}
    path = folder / "viewer.mat"
    scipy.io.savemat(path, {"ETdata": data | {"pos": np.array(rows)}})
    picture = board(folder / "board.png", size, px)  # type: ignore[arg-type]
    return Made("andersson", path, (f"--video={picture}",), False, size, px)  # type: ignore[arg-type]


def plain(folder: Path) -> Made:
    size, px = (800, 600), (20.0, 20.0)
    rows = [(f"{t / 1e9:.3f}", x * size[0], y * size[1]) for t, x, y in samples()]
    path = table(folder / "gaze.csv", ["time [s]", "x [px]", "y [px]"], rows)
    picture = board(folder / "board.png", size, px)
    return Made("table", path, (f"--video={picture}", "--px-per-degree=20"), False, size, px)


MAKERS: dict[str, Callable[[Path], Made]] = {
    "pupil-player": pupil_player,
    "neon": neon,
    "neon-export": neon_export,
    "eyelink": eyelink,
    "bids": bids,
    "tobii": tobii,
    "studyforrest": studyforrest,
    "andersson": andersson,
    "table": plain,
}
