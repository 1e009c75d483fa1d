"""``rjepa stream``: gaze and video to fixation patches to the worker."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from clients.errors import OptionError, SourceError, UnitsUnknown
from clients.settings import RecordingSettings, SimulatedSettings, StreamSettings, load
from clients.units import FrameSize, from_px_per_degree, from_screen, parse_pair

if TYPE_CHECKING:
    from clients.gaze import GazeTrack

KINDS = {
    "recording": "gaze and video recorded before",
    "simulated": "an observer that looks about a video, for a machine without a tracker",
}
ABOUT_RECORDING = """\
Finds fixations in recorded gaze, cuts 5 degrees around each from the frame shown at its onset, and sends them, at
real pace. Streamed again into the same stream, what is there already is recognised and not learned twice.

  rjepa stream recording --video scene.mp4 --gaze gaze.csv --px-per-degree 15.5"""
ABOUT_SIMULATED = """\
Looks about a video by saliency and inhibition of return, and sends each fixation, at real pace. Without
--px-per-degree the video is taken to be 30 degrees wide.

  rjepa stream simulated scene.mp4 --fixations 300"""


def usage() -> str:
    """The text of ``rjepa stream --help``."""
    lines = ["usage: rjepa stream KIND [OPTIONS]        rjepa stream KIND --help tells the options", ""]
    return "\n".join(lines + [f"  {kind:<10} {text}" for kind, text in KINDS.items()])


def main(argv: list[str]) -> int:
    """Run ``rjepa stream <argv>``; returns the exit code. Raises :class:`clients.errors.ClientError`."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if argv else 2
    kind, words = argv[0], argv[1:]
    if kind == "recording":
        return _recording(load(RecordingSettings, words, "rjepa stream recording", ABOUT_RECORDING))
    if kind == "simulated":
        return _simulated(load(SimulatedSettings, words, "rjepa stream simulated", ABOUT_SIMULATED))
    raise OptionError(f"unknown kind of stream {kind!r}; there are: {', '.join(KINDS)}")


def _recording(settings: RecordingSettings) -> int:
    """Play recorded gaze over its video."""
    from clients.fixations import Detector, DetectorSettings
    from clients.pipeline import Pipeline
    from clients.play import Recording
    from clients.progress import Progress
    from clients.session import Session, stream_name
    from clients.video import SECOND_NS, open_frames

    gaze_path, video_path = _parts(settings)
    frames = open_frames(video_path)
    try:
        shown_px = (frames.width_px, frames.height_px)
        track = _read_gaze(gaze_path, settings, shown_px)
        size = _size(settings, shown_px) or track.frame
        if size is None:
            raise UnitsUnknown(
                "nothing says how large a degree is: give --px-per-degree X, the pixels of the video in one degree at "
                "its centre; or measure the picture on the screen and the eye's distance to it, and give --screen-mm "
                "WxH and --distance-mm D"
            )
        session = Session(settings, stream_name(gaze_path.stem, settings), finite=True)
        _announce(f"{session.name}: {len(track)} samples, {track.length_s:.1f} s; {'; '.join(track.notes)}")
        _announce(f"{session.name}: {video_path.name}, {_seen(shown_px, size)}")
        told_s = settings.video_start
        start_ns = track.first_ns if told_s is None else round(told_s * SECOND_NS)
        detector = Detector(size, DetectorSettings(method=settings.detector, min_confidence=settings.min_confidence))
        length_s = min(track.length_s, settings.end or track.length_s) - settings.start
        with (
            session.signals(),
            session.sender(recording=True) as sender,
            Progress(session.name, max(0.1, length_s)) as progress,
        ):
            held = session.meet(sender, progress)
            pipeline = Pipeline(sender, size, session.summary, session.stop, sequence=gaze_path.stem, patient=True)
            Recording(track, frames, detector, start_ns).play(session, pipeline, sender, progress, held)
            return session.finish(sender, progress)
    finally:
        frames.close()


def _simulated(settings: SimulatedSettings) -> int:
    """Let an observer look about a video."""
    from clients.pipeline import Pipeline
    from clients.play import Simulation
    from clients.progress import Progress
    from clients.sample import sample_video
    from clients.session import Session, stream_name
    from clients.simulated import Observer
    from clients.video import Picture, open_frames

    path = sample_video() if settings.video == "sample" else Path(settings.video)
    frames = open_frames(path)
    try:
        if isinstance(frames, Picture) and settings.fixations is None and not settings.loop and settings.end is None:
            raise OptionError(f"{path} is a picture and has no end: say --fixations N, --end S or --loop")
        shown_px = (frames.width_px, frames.height_px)
        size = _size(settings, shown_px)
        if size is None:
            across = shown_px[0] / settings.frame_degrees
            size = from_px_per_degree(*shown_px, across, across)
        session = Session(settings, stream_name(f"simulated-{path.stem}", settings), finite=not _endless(settings))
        _announce(
            f"{session.name}: a simulated observer (seed {settings.seed}) of {path.name}, {_seen(shown_px, size)}"
        )
        simulation = Simulation(Observer(frames, size, settings.seed), fixations=settings.fixations, loop=settings.loop)
        with session.signals(), session.sender(recording=False) as sender, Progress(session.name, None) as progress:
            if session.finite:
                session.meet(sender, progress)
            pipeline = Pipeline(sender, size, session.summary, session.stop, sequence=None, patient=session.finite)
            simulation.play(session, pipeline, sender, progress)
            return session.finish(sender, progress)
    finally:
        frames.close()


def _endless(settings: SimulatedSettings) -> bool:
    return settings.loop and settings.fixations is None


def _parts(settings: RecordingSettings) -> tuple[Path, Path]:
    """The gaze file and the video. Raises :class:`SourceError` that says what is missing."""
    gaze = settings.gaze or settings.path
    if settings.gaze is not None and settings.path is not None:
        raise OptionError(f"both PATH ({settings.path}) and --gaze ({settings.gaze}): which one is the gaze?")
    if gaze is None:
        raise OptionError("a recording is needed: PATH, or --gaze FILE with --video FILE")
    if gaze.is_dir():
        raise SourceError(f"{gaze} is a folder of no format that is recognised; name its parts with --gaze and --video")
    if settings.video is None:
        raise OptionError(f"{gaze} is gaze without a picture: say what was looked at with --video FILE")
    return gaze, settings.video


def _read_gaze(path: Path, settings: RecordingSettings, shown_px: tuple[int, int]) -> GazeTrack:
    from clients.andersson import read_andersson
    from clients.recording import TableOptions, parse_columns, read_table

    if path.suffix.lower() == ".mat":
        return read_andersson(path)
    pair = _pair(settings.gaze_frame, "--gaze-frame") if settings.gaze_frame else shown_px
    options = TableOptions(
        columns=parse_columns(settings.columns),
        time_unit=settings.time_unit,
        gaze_unit=settings.gaze_unit,
        origin=settings.origin,
        size_px=pair,
        frame=_size(settings, shown_px),
    )
    return read_table(path, options)


def _size(settings: StreamSettings, shown_px: tuple[int, int]) -> FrameSize | None:
    """The degrees of the frame as the options give them; None if they don't."""
    if settings.px_per_degree is not None:
        across, down = parse_pair(settings.px_per_degree, "--px-per-degree")
        return from_px_per_degree(*shown_px, across, down or across)
    if not isinstance(settings, RecordingSettings):
        return None
    if (settings.screen_mm is None) != (settings.distance_mm is None):
        raise OptionError("--screen-mm and --distance-mm belong together: one alone gives no angle")
    if settings.screen_mm is None or settings.distance_mm is None:
        return None
    width_mm, height_mm = _pair(settings.screen_mm, "--screen-mm")
    return from_screen(width_mm / 1000, height_mm / 1000, settings.distance_mm / 1000)


def _pair(text: str, option: str) -> tuple[float, float]:
    first, second = parse_pair(text, option)
    if second is None:
        raise OptionError(f"{option} {text!r}: width and height are wanted, like 1024x768")
    return first, second


def _seen(shown_px: tuple[int, int], size: FrameSize) -> str:
    across, down = size.px_per_degree(*shown_px)
    return (
        f"{shown_px[0]} x {shown_px[1]} px, {size.width_deg:.1f} x {size.height_deg:.1f} degrees "
        f"({across:.1f} x {down:.1f} px/deg)"
    )


def _announce(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
