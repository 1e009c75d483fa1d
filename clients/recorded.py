"""What a recording format gives, and what it is asked for: the shape that every reader of a format has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clients.errors import OptionError, SourceError
from clients.fixations import Fixation
from clients.gaze import GazeTrack
from clients.settings import RecordingSettings
from clients.units import FrameSize, parse_pair


@dataclass(frozen=True)
class OwnVideo:
    """A recording's own video. ``times_ns``: when each frame was taken, in the gaze's clock. ``rest``: the same of the
    files that follow, where the camera was unplugged in between."""

    path: Path
    times_ns: tuple[int, ...]
    rest: tuple[tuple[Path, tuple[int, ...]], ...] = ()


@dataclass(frozen=True)
class Asked:
    """How a recording is to be read.

    ``shown_px``: width and height of the video; ``own_video``: it is the recording's own; ``frame``: the degrees of
    the video as the options give them, None if they don't.
    """

    settings: RecordingSettings
    shown_px: tuple[int, int]
    own_video: bool = False
    frame: FrameSize | None = None

    @property
    def gaze_px(self) -> tuple[float, float] | None:
        """The picture that gaze in pixels refers to, as ``--gaze-frame`` says."""
        told = self.settings.gaze_frame
        return None if told is None else pair(told, "--gaze-frame")


@dataclass(frozen=True)
class Recorded:
    """A recording as it was read: ``track`` (None: there are only events), ``fixations`` as the tracker or its software
    found them, in order (None: the recording has none), ``frame``: the degrees its picture subtends, where it tells
    them, ``messages``: (time in ns, text) that the experiment put into it, ``notes``: how it was read, for people.
    """

    track: GazeTrack | None = None
    fixations: tuple[Fixation, ...] | None = None
    frame: FrameSize | None = None
    messages: tuple[tuple[int, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def first_ns(self) -> int:
        """When it begins. Raises :class:`SourceError` where there is nothing in it."""
        if self.track is not None:
            return self.track.first_ns
        if not self.fixations:
            raise SourceError("there are neither samples nor fixations in this recording")
        return self.fixations[0].onset_ns


OF_SOME = ("eye", "columns", "time_unit", "gaze_unit", "gaze_frame", "origin")
"""Options that only some formats have a use for."""


def _no_video(path: Path) -> OwnVideo | None:
    return None


@dataclass(frozen=True)
class Format:
    """One format. ``signs``: what it is recognised by; ``geometry``: what to measure where nothing tells the degrees;
    ``video`` finds the recording's own video (None: it has none). ``fits``, ``video`` and ``read`` get the path.
    ``takes``: those of :data:`OF_SOME` that say something here.
    """

    name: str
    title: str
    signs: str
    fits: Callable[[Path], bool]
    read: Callable[[Path, Asked], Recorded]
    video: Callable[[Path], OwnVideo | None] = _no_video
    geometry: str = (
        "give --px-per-degree X, the pixels of the video in one degree at its centre; or measure the picture on the "
        "screen and the eye's distance to it, and give --screen-mm WxH and --distance-mm D"
    )
    takes: tuple[str, ...] = ()

    def check(self, settings: RecordingSettings) -> None:
        """Raise :class:`OptionError` for an option that would go unheard with this format."""
        for name in OF_SOME:
            if getattr(settings, name) is not None and name not in self.takes:
                raise OptionError(
                    f"--{name.replace('_', '-')} says nothing about a recording of this format ({self.title}): leave "
                    "it away, or name the right format with --format"
                )


SCENE_CAMERA = (
    "give --px-per-degree X, the pixels of the scene video in one degree at its centre: 0.01745 times the focal length "
    "of the camera in pixels"
)


def pair(text: str, option: str) -> tuple[float, float]:
    """Width and height, like 1024x768. Raises :class:`OptionError`."""
    first, second = parse_pair(text, option)
    if second is None:
        raise OptionError(f"{option} {text!r}: width and height are wanted, like 1024x768")
    return first, second


def only_video(folder: Path) -> Path | None:
    """The one video in ``folder``; None if there is none. Raises :class:`SourceError` where there are several."""
    found = sorted(file for file in folder.iterdir() if file.suffix.lower() in (".mp4", ".avi", ".mkv", ".mov"))
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise SourceError(f"{folder} has more than one video ({names}): say which with --video FILE")
    return found[0] if found else None
