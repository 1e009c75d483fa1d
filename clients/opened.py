"""A recording opened: gaze, what was looked at, how large it was to the eye, and where its fixations come from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from clients.errors import OptionError, SourceError, UnitsUnknown
from clients.finding import Finder, Sampled, Told
from clients.fixations import DetectorSettings, Fixation
from clients.formats import FORMATS, recognise
from clients.recorded import Asked, Format, OwnVideo, Recorded, pair
from clients.settings import RecordingSettings, StreamSettings
from clients.units import FrameSize, from_px_per_degree, from_screen, parse_pair
from clients.video import SECOND_NS, Chain, Frame, Frames, Looped, Video, open_frames

if TYPE_CHECKING:
    from typing_extensions import Self

SOME_MESSAGES = 8


@dataclass(frozen=True)
class OpenedRecording:
    """``name``: for a stream; ``notes``: how it was read; ``video_start_ns``: time of the video's first frame in the
    gaze's clock. To be left as a context."""

    name: str
    form: Format
    notes: tuple[str, ...]
    finder: Finder
    video: Path
    frames: Frames
    size: FrameSize
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
        for moment in self.finder.moments(-math.inf, math.inf):
            for fixation in moment.fixations:
                yield fixation, self.shown(fixation)

    def shown(self, fixation: Fixation) -> Frame | None:
        """The frame at the onset of ``fixation``; None: there was none."""
        return self.frames.nearest(fixation.onset_ns - self.video_start_ns)


def open_recording(settings: RecordingSettings) -> OpenedRecording:
    """What ``settings`` name. Raises :class:`~clients.errors.ClientError`: what is missing, and the way out."""
    path = _path(settings)
    form = FORMATS[settings.format] if settings.format else recognise(path)
    if not path.exists():
        raise SourceError(f"recording {path} is not there")
    try:
        return _open(path, form, settings)
    except (NotADirectoryError, IsADirectoryError):
        raise SourceError(f"{path} is no {form.title}: that is {form.signs}") from None


def _open(path: Path, form: Format, settings: RecordingSettings) -> OpenedRecording:
    own = form.video(path) if settings.video is None else None
    if settings.video is None and own is None:
        raise OptionError(f"{path} ({form.title}) is gaze without a picture: say what was looked at with --video FILE")
    frames = _frames(settings, own)
    try:
        shown_px = (frames.width_px, frames.height_px)
        asked = Asked(settings, shown_px, own is not None, frame_size(settings, shown_px))
        recorded = form.read(path, asked)
        size = asked.frame or recorded.frame
        if size is None:
            raise UnitsUnknown(f"nothing in {path} says how large a degree is: {form.geometry}")
        start_ns = _video_start(path, settings, recorded, own)
        shown = own.path if own else settings.video
        assert shown is not None
        finder = _finder(path, settings, recorded, size)
        return OpenedRecording(_name(path), form, recorded.notes, finder, shown, frames, size, start_ns)
    except BaseException:
        frames.close()
        raise


def _path(settings: RecordingSettings) -> Path:
    """The recording. Raises :class:`OptionError` that says what is missing."""
    if settings.gaze is not None and settings.path is not None:
        raise OptionError(f"both PATH ({settings.path}) and --gaze ({settings.gaze}): which one is the gaze?")
    path = settings.gaze or settings.path
    if path is None:
        raise OptionError("a recording is needed: PATH, or --gaze FILE with --video FILE")
    return path


def _name(path: Path) -> str:
    """What a stream of this recording is called."""
    path = path.absolute()
    if path.is_dir() and path.parent.name == "exports":  # RECORDING/exports/000
        return f"{path.parent.parent.name}-{path.name}"
    return path.name if path.is_dir() else path.stem.removesuffix(".tsv")


def _frames(settings: RecordingSettings, own: OwnVideo | None) -> Frames:
    if own is not None:
        parts: list[tuple[int, Video]] = []
        try:
            for path, times_ns in ((own.path, own.times_ns), *own.rest):
                if times_ns:
                    parts.append((times_ns[0], Video(path, [time_ns - times_ns[0] for time_ns in times_ns])))
        except BaseException:
            for _, video in parts:
                video.close()
            raise
        if not parts:
            raise SourceError(f"video {own.path} has no times of its frames")
        if settings.video_loop:
            raise OptionError("--video-loop is for gaze over another's --video: this recording has its own")
        return parts[0][1] if len(parts) == 1 else Chain(parts)
    assert settings.video is not None
    frames = open_frames(settings.video)
    return Looped(frames) if settings.video_loop and isinstance(frames, Video) else frames


def _video_start(path: Path, settings: RecordingSettings, recorded: Recorded, own: OwnVideo | None) -> int:
    """When the video began, in ns of the gaze's clock."""
    if settings.video_start is not None and settings.video_message is not None:
        raise OptionError("--video-start and --video-message both say when the video began: give one of them")
    if settings.video_start is not None:
        return round(settings.video_start * SECOND_NS)
    if settings.video_message is None:
        return own.times_ns[0] if own else recorded.first_ns
    for time_ns, text in recorded.messages:
        if settings.video_message in text:
            return time_ns
    some = ", ".join(repr(text[:60]) for _, text in recorded.messages[-SOME_MESSAGES:])
    raise OptionError(
        f"--video-message {settings.video_message!r}: none of the {len(recorded.messages)} messages in {path} has this "
        f"in it{'; the last are: ' + some if some else ''}"
    )


def _finder(path: Path, settings: RecordingSettings, recorded: Recorded, size: FrameSize) -> Finder:
    """Our detector, or the tracker's fixations where they were asked for or are all there is."""
    told, method = recorded.fixations, settings.detector
    if method == "tracker" or recorded.track is None:
        if not told:
            raise OptionError(
                f"--detector tracker: {path} has no fixations of the tracker's own; ours are found with ivt"
            )
        if method in ("ivt", "idt"):
            raise OptionError(f"--detector {method}: {path} has no samples, only the fixations that were found in them")
        return Told(told, recorded.first_ns)
    chosen = dataclasses.replace(DetectorSettings(), method=method, min_confidence=settings.min_confidence)
    return Sampled(recorded.track, size, chosen)


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
    width_mm, height_mm = pair(settings.screen_mm, "--screen-mm")
    return from_screen(width_mm / 1000, height_mm / 1000, settings.distance_mm / 1000)
