"""``rjepa stream``: gaze and video to fixation patches to the worker."""

from __future__ import annotations

import sys
from pathlib import Path

from clients.errors import OptionError
from clients.live_settings import LIVE_KINDS, load_live
from clients.settings import RecordingSettings, SimulatedSettings, load
from clients.units import FrameSize, from_px_per_degree

KINDS = {
    "recording": "gaze and video recorded before",
    "simulated": "an observer that looks about a video, for a machine without a tracker",
    **LIVE_KINDS,
}
ABOUT_RECORDING = """\
Finds fixations in recorded gaze, cuts 5 degrees around each from the frame shown at its onset, and sends them, at
real pace. The format of PATH is recognised and said. Streamed again into the same stream, what is there already is
recognised and not learned twice.

  rjepa stream recording 2024-10-10_09-41-45/                     a Neon recording, or an export with its video
  rjepa stream recording anna.asc --video film.mp4                gaze on a screen, and what it showed
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
    if kind in LIVE_KINDS:
        live_settings = load_live(kind, words)
        from clients.live_main import live

        return live(live_settings)
    raise OptionError(f"unknown kind of stream {kind!r}; there are: {', '.join(KINDS)}")


def _recording(settings: RecordingSettings) -> int:
    """Play recorded gaze over its video."""
    from clients.opened import open_recording
    from clients.pipeline import Pipeline
    from clients.play import Recording
    from clients.progress import Progress
    from clients.session import Session, stream_name

    with open_recording(settings) as opened:
        opened.form.check(settings)
        finder = opened.finder
        if settings.start >= finder.length_s:
            raise OptionError(f"--start {settings.start:g}: {opened.name} is {finder.length_s:.1f} s long")
        session = Session(settings, stream_name(opened.name, settings), finite=not settings.loop)
        _announce(f"{session.name}: {opened.form.title}, {finder.length_s:.1f} s; {'; '.join(opened.notes)}")
        _announce(f"{session.name}: {opened.video.name}, {_seen(opened.shown_px, opened.size)}")
        length_s = min(finder.length_s, settings.end or finder.length_s) - settings.start
        with (
            session.signals(),
            session.sender(recording=True) as sender,
            Progress(session.name, None if settings.loop else max(0.1, length_s)) as progress,
        ):
            held = session.meet(sender, progress)
            pipeline = Pipeline(sender, opened.size, session.summary, session.stop, sequence=opened.name, patient=True)
            Recording(opened, loop=settings.loop).play(session, pipeline, sender, progress, held)
            return session.finish(sender, progress)


def _simulated(settings: SimulatedSettings) -> int:
    """Let an observer look about a video."""
    from clients.opened import frame_size
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
        size = frame_size(settings, shown_px)
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


def _seen(shown_px: tuple[int, int], size: FrameSize) -> str:
    across, down = size.px_per_degree(*shown_px)
    return (
        f"{shown_px[0]} x {shown_px[1]} px, {size.width_deg:.1f} x {size.height_deg:.1f} degrees "
        f"({across:.1f} x {down:.1f} px/deg)"
    )


def _announce(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
