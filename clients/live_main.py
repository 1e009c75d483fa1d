"""``rjepa stream pupil-core``, ``lsl``, ``neon`` and ``camera``: what each is made of."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

from clients.camera import Camera
from clients.errors import OptionError
from clients.feed import Feed, Source
from clients.fixations import DetectorSettings, Method
from clients.frames import FileShown
from clients.live import Live, running
from clients.live_settings import CAMERA, LiveSettings, LslSettings, NeonSettings, PupilCoreSettings
from clients.optics import Optics, read_optics
from clients.progress import Progress
from clients.session import Session, stream_name
from clients.video import SECOND_NS, open_frames

REORDER_NS = 40_000_000
"""Pupil Core's samples come in bursts once a world frame, and not in order."""


def live(settings: LiveSettings) -> int:
    """Run one live source; returns the exit code. Raises :class:`clients.errors.ClientError`."""
    if isinstance(settings, PupilCoreSettings):
        return _pupil_core(settings)
    if isinstance(settings, LslSettings):
        return _lsl(settings)
    assert isinstance(settings, NeonSettings)
    return _neon(settings)


def _pupil_core(settings: PupilCoreSettings) -> int:
    from clients.pupil_core import PupilCore

    theirs = settings.detector == "tracker"
    source = PupilCore(settings.address, settings.frame_format, video=settings.video is None, theirs=theirs)
    return stream(settings, "pupil-core", source, settings.detector, tells_optics=True, reorder_ns=REORDER_NS)


def _lsl(settings: LslSettings) -> int:
    from clients.lsl import Lsl

    if settings.video is None:
        raise OptionError("LSL carries no video: say what is looked at with --video camera:0 or --video FILE")
    optics = _optics(settings)
    return stream(
        settings, f"lsl-{settings.name or settings.type}", Lsl(settings, optics), settings.detector, optics=optics
    )


def _neon(settings: NeonSettings) -> int:
    from clients.neon import Neon

    if settings.video is not None:
        raise OptionError("--video: Neon's gaze lies in the picture of its own scene camera, which is streamed with it")
    source = Neon(settings.address, theirs=settings.detector == "tracker")
    return stream(settings, "neon", source, settings.detector, tells_optics=True)


def stream(
    settings: LiveSettings,
    name: str,
    source: Source,
    detector: str,
    *,
    optics: Optics | None = None,
    tells_optics: bool = False,
    reorder_ns: int = 0,
) -> int:
    """``source`` to the worker until it is stopped; the exit code.

    ``tells_optics``: whether the source may tell its camera's intrinsics; otherwise options must, before it begins.
    """
    if settings.speed != "1":
        raise OptionError(f"--speed {settings.speed}: what happens now has its own pace")
    optics = optics or _optics(settings)
    if not optics.known and (not tells_optics or settings.video is not None):
        raise optics.unknown("what the video shows")
    theirs = detector == "tracker"
    method: Method = "auto" if detector == "tracker" else detector  # type: ignore[assignment]
    detection = DetectorSettings(method=method, min_confidence=settings.min_confidence)
    with ExitStack() as stack:
        feed, sources = _seen(settings, source, stack)
        whole = settings.model_copy(update={"start": 0.0, "end": None})  # no part of anything that will come again
        session = Session(settings, stream_name(name, whole), finite=False)
        stack.enter_context(session.signals())
        sender = stack.enter_context(session.sender(recording=False))
        progress = stack.enter_context(Progress(session.name, None))
        print(f"{session.name}: to {sender.address}; ends with Ctrl-C", file=sys.stderr, flush=True)
        pipeline = Live(session, sender, progress, feed, optics, detection, theirs=theirs, reorder_ns=reorder_ns)
        with running(sources, feed):
            pipeline.run()
        progress.say("; ".join(one.words() for one in sources))
        return session.finish(sender, progress)


def _optics(settings: LiveSettings) -> Optics:
    return read_optics(
        px_per_degree=settings.px_per_degree,
        fov=settings.fov,
        intrinsics=settings.intrinsics,
        screen_mm=settings.screen_mm,
        distance_mm=settings.distance_mm,
    )


def _seen(settings: LiveSettings, source: Source, stack: ExitStack) -> tuple[Feed, list[Source]]:
    """Where the pictures come from: the source itself, a camera, or a file."""
    filmed = settings.video is not None and settings.video.startswith(CAMERA)
    if settings.camera_delay_ms and not filmed:
        raise OptionError("--camera-delay-ms is for --video camera:N: nothing else has such a delay")
    if settings.video_start is not None and (filmed or settings.video is None):
        raise OptionError("--video-start is for a --video FILE: a camera has no beginning")
    if settings.video is None:
        return Feed(), [source]
    if filmed:
        what = settings.video[len(CAMERA) :]
        camera = Camera(what, source.now_ns, round(settings.camera_delay_ms * 1e6))
        return Feed(), [source, camera]
    frames = open_frames(Path(settings.video))
    stack.callback(frames.close)
    start_ns = None if settings.video_start is None else round(settings.video_start * SECOND_NS)
    return Feed(FileShown(frames, start_ns)), [source]
