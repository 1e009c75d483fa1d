"""A recording opened: gaze, what was looked at, how large it was to the eye, and how fixations are found in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from clients.errors import OptionError, SourceError, UnitsUnknown
from clients.fixations import Detector, DetectorSettings, Fixation
from clients.gaze import GazeTrack
from clients.settings import RecordingSettings, StreamSettings
from clients.units import FrameSize, from_px_per_degree, from_screen, parse_pair
from clients.video import SECOND_NS, Frame, Frames, open_frames

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class OpenedRecording:
    """``video_start_ns``: time of the video's first frame in the gaze's clock. To be left as a context."""

    track: GazeTrack
    video: Path
    frames: Frames
    size: FrameSize
    detector: Detector
    video_start_ns: int

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.frames.close()

    @property
    def shown_px(self) -> tuple[int, int]:
        """Width and height of the picture."""
        return self.frames.width_px, self.frames.height_px

    def fixations(self) -> Iterator[tuple[Fixation, Frame | None]]:
        """Every fixation, once, in order, with the frame shown at its onset (None: there was none)."""
        for sample in self.track.samples():
            for fixation in self.detector.feed(sample):
                yield fixation, self._shown(fixation)
        for fixation in self.detector.finish():
            yield fixation, self._shown(fixation)

    def _shown(self, fixation: Fixation) -> Frame | None:
        return self.frames.nearest(fixation.onset_ns - self.video_start_ns)


def open_recording(settings: RecordingSettings) -> OpenedRecording:
    """What ``settings`` name. Raises :class:`~clients.errors.ClientError`: what is missing, and the way out."""
    gaze_path, video_path = _parts(settings)
    frames = open_frames(video_path)
    try:
        shown_px = (frames.width_px, frames.height_px)
        track = _read_gaze(gaze_path, settings, shown_px)
        size = frame_size(settings, shown_px) or track.frame
        if size is None:
            raise UnitsUnknown(
                "nothing says how large a degree is: give --px-per-degree X, the pixels of the video in one degree at "
                "its centre; or measure the picture on the screen and the eye's distance to it, and give --screen-mm "
                "WxH and --distance-mm D"
            )
        told_s = settings.video_start
        start_ns = track.first_ns if told_s is None else round(told_s * SECOND_NS)
        detector = Detector(size, DetectorSettings(method=settings.detector, min_confidence=settings.min_confidence))
        return OpenedRecording(track, video_path, frames, size, detector, start_ns)
    except BaseException:
        frames.close()
        raise


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
        frame=frame_size(settings, shown_px),
    )
    return read_table(path, options)


def frame_size(settings: StreamSettings, shown_px: tuple[int, int]) -> FrameSize | None:
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
