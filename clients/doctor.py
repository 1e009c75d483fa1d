"""What can be reached from this computer: every probe at the same time, each within its limit."""

from __future__ import annotations

import importlib.util
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from clients.camera_probe import CamerasSeen, ask_cameras
from clients.capture_probe import CaptureSeen, ask_capture
from clients.connection import read_keys
from clients.doctor_finding import Finding, State
from clients.errors import ClientError, KeyRefused
from clients.glimpse import MEASURE, Glimpse, Scale
from clients.lsl_probe import ask_lsl
from clients.pairing import read_pairing
from clients.settings import DoctorSettings, parse_point
from clients.units import parse_pair
from clients.video import open_frames
from clients.worker_probe import WorkerSeen, ask_worker

GRACE_S = 4.0
"""What a probe may take beyond the time it gives the other side."""
EXTRAS = {"lsl": "pylsl", "neon": "pupil_labs.realtime_api", "recordings": "scipy"}
"""Extra of the distribution, and the module that shows whether it is here."""

Seen = TypeVar("Seen")


@dataclass(frozen=True)
class Report:
    """Everything found, in the order it is told. ``exit_code``: 0 if the worker takes fixations from here."""

    findings: list[Finding] = field(default_factory=list)
    exit_code: int = 0


def examine(settings: DoctorSettings) -> Report:
    """Look for everything ``settings`` name, and write the picture where one is asked for."""
    scale, within_s = _scale(settings), settings.within
    worker = _Probe("worker", lambda: _worker(settings), within_s)
    capture = _Probe("pupil capture", lambda: ask_capture(settings.capture, scale, within_s), within_s)
    lsl = _Probe("lsl", lambda: ask_lsl(within_s), within_s)
    cameras = _Probe("camera", lambda: ask_cameras(settings.cameras), within_s)
    seen = worker.seen(lambda overdue: WorkerSeen(overdue, ClientError.exit_code))
    captured = capture.seen(lambda overdue: CaptureSeen([overdue]))
    filmed = cameras.seen(lambda overdue: CamerasSeen([overdue]))
    findings = [seen.finding, *captured.findings, *lsl.seen(lambda overdue: [overdue]), *filmed.findings, *_extras()]
    if settings.picture is not None:
        findings.append(_picture(settings, settings.picture, captured, filmed, scale))
    return Report(findings, seen.exit_code)


class _Probe(Generic[Seen]):
    """Runs ``ask`` in a thread of its own, which is left behind where it does not come back."""

    def __init__(self, what: str, ask: Callable[[], Seen], limit_s: float) -> None:
        self._what = what
        self._ask = ask
        self._end_s = time.monotonic() + limit_s + GRACE_S
        self._found: list[Seen] = []
        self._failed: ClientError | None = None
        self._thread = threading.Thread(target=self._run, name=f"probe-{what}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._found.append(self._ask())
        except ClientError as error:
            self._failed = error

    def seen(self, instead: Callable[[Finding], Seen]) -> Seen:
        """What it found; what ``instead`` makes of the finding that it failed or took too long."""
        self._thread.join(max(0.0, self._end_s - time.monotonic()))
        if self._found:
            return self._found[0]
        if self._failed is not None:
            return instead(Finding(self._what, State.TROUBLE, str(self._failed)))
        if self._thread.is_alive():
            remedy = "give it longer with --within S; a device that hangs is plugged in anew"
            return instead(Finding(self._what, State.TROUBLE, "not done in time, given up", remedy))
        return instead(Finding(self._what, State.TROUBLE, "ended by an error of its own, above", "please report it"))


def _worker(settings: DoctorSettings) -> WorkerSeen:
    """The worker, by the keys and the stream that the options or the pair file give."""
    stream = settings.stream
    try:
        keys = None if settings.key is None else read_keys(settings.key)
        if stream is None and settings.pair is not None:
            # Any name that fits: the shortest that the first pattern takes.
            stream = read_pairing(settings.pair).streams[0].replace("*", "").replace("?", "x") or None
    except KeyRefused as error:
        return WorkerSeen(Finding("worker", State.TROUBLE, str(error), "rjepa pair NAME makes one"), error.exit_code)
    return ask_worker(settings.ingest, keys, stream or "doctor", settings.within)


def _scale(settings: DoctorSettings) -> Scale | None:
    if settings.px_per_degree is None:
        return None
    across, down = parse_pair(settings.px_per_degree, "--px-per-degree")
    return across, down or across


def _extras() -> list[Finding]:
    """What this installation can do, and the command that adds what it can't."""
    here = {extra: _is_there(module) for extra, module in EXTRAS.items()}
    missing = [extra for extra, there in here.items() if not there]
    told = "; ".join(f"{extra} {'installed' if there else 'not installed'}" for extra, there in here.items())
    remedy = f"where it is needed: pip install 'rjepa[{','.join(missing)}]'" if missing else None
    return [Finding("extras", State.ABSENT if missing else State.OK, told, remedy)]


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _picture(
    settings: DoctorSettings, path: Path, captured: CaptureSeen, filmed: CamerasSeen, scale: Scale | None
) -> Finding:
    """The file asked for, and what is on it: the video named, else what Capture showed, else a camera's frame."""
    x, y = (0.5, 0.5) if settings.gaze is None else parse_point(settings.gaze)
    try:
        if settings.video is not None:
            glimpse = _of_video(settings.video, x, y, scale)
        elif captured.glimpse is not None:
            glimpse = captured.glimpse
        elif filmed.bgr is not None:
            glimpse = Glimpse(filmed.name, filmed.bgr, x, y, scale)
        else:
            told = "nothing to be seen: no gaze and frame from Capture, no camera"
            return Finding("picture", State.TROUBLE, told, "give a frame with --video FILE, and --gaze X,Y")
        told = glimpse.write(path)
    except ClientError as error:
        return Finding("picture", State.TROUBLE, str(error))
    return Finding("picture", State.OK, told, MEASURE if glimpse.scale is None else None)


def _of_video(path: Path, x: float, y: float, scale: Scale | None) -> Glimpse:
    frames = open_frames(path)
    try:
        frame = frames.nearest(0)
        assert frame is not None, "it could be opened, so it has a first frame"
        return Glimpse(path.name, frame.bgr, x, y, scale)
    finally:
        frames.close()
