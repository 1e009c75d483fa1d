"""Options of the live sources of ``rjepa stream``, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from clients.errors import OptionError
from clients.settings import StreamSettings, load

CAMERA = "camera:"
"""What --video begins with where it is no file."""
LIVE_KINDS = {
    "pupil-core": "Pupil Core, from Pupil Capture's network interface",
    "lsl": "a gaze stream of the Lab Streaming Layer, over a camera or a video",
    "neon": "Pupil Labs Neon and Invisible, from the phone",
    "camera": "a camera of this computer, with the gaze of a tracker that has none",
}

ABOUT = {
    "pupil-core": """\
Takes gaze and the world camera's frames from Pupil Capture, finds fixations as they happen and sends each with its 5
degrees. Capture runs with the Network API plugin on. A restart of Capture is noticed and gone on with.

  rjepa stream pupil-core 127.0.0.1:50020 --intrinsics world.intrinsics --stream anna-1
  rjepa stream pupil-core --px-per-degree 13.9 --detector tracker""",
    "lsl": """\
Takes gaze from a stream of the Lab Streaming Layer, found by its type or name; units come from its description. LSL
carries no video: --video says what was looked at, camera:0 for a camera of this computer.

  rjepa stream lsl --name pupil_capture --video camera:0 --px-per-degree 13.9
  rjepa stream lsl --video film.mp4 --screen-mm 531x299 --distance-mm 700""",
    "neon": """\
Takes gaze, scene video and, with --detector tracker, fixations from the Companion app of Neon or Invisible in the same
network. Without an address, the first device that is found. The scene camera's intrinsics come from the device (Neon).

  rjepa stream neon 192.168.1.21:8080 --stream anna-1
  rjepa stream neon --detector tracker""",
    "camera": """\
Takes pictures from a camera and gaze from another source, LSL or Pupil Capture: the same as --video camera:N there. The
camera must see what the gaze is told for, as a scene camera or a camera before the screen does.

  rjepa stream camera 0 --gaze lsl --name tobii --px-per-degree 13.9 --stream anna-1
  rjepa stream camera 1 --gaze pupil-core --address 127.0.0.1:50020 --px-per-degree 13.9""",
}


class LiveSettings(StreamSettings):
    """Options common to every live source."""

    video: Annotated[str | None, Field(json_schema_extra={"metavar": "WHAT"})] = None
    """What is seen: camera:N (or camera:URL), a video file or a picture; without it, the tracker's scene camera."""
    video_start: Annotated[float | None, Field(json_schema_extra={"metavar": "S"})] = None
    """Time of a video file's first frame in the gaze's clock, in seconds; without it, that of the first sample."""
    camera_delay_ms: Annotated[float, Field(ge=0.0, json_schema_extra={"metavar": "MS"})] = 0.0
    """How late a picture of camera:N is when it arrives, in ms."""
    intrinsics: Annotated[Path | None, Field(json_schema_extra={"metavar": "FILE"})] = None
    """The camera's intrinsics, a file world.intrinsics as Pupil Capture writes into each recording."""
    fov: Annotated[str | None, Field(json_schema_extra={"metavar": "W"})] = None
    """Degrees from the left to the right edge of the video, of a lens without a fisheye's distortion; WxH for both."""
    screen_mm: Annotated[str | None, Field(json_schema_extra={"metavar": "WxH"})] = None
    """Size of the picture on the screen, in mm; with --distance-mm, where the video is what a screen shows."""
    distance_mm: Annotated[float | None, Field(gt=0.0, json_schema_extra={"metavar": "D"})] = None
    """Distance from the eye to the screen, in mm."""
    min_confidence: Annotated[float, Field(ge=0.0, le=1.0, json_schema_extra={"metavar": "C"})] = 0.6
    """Samples less confident than C count as lost."""

    @field_validator("video")
    @classmethod
    def _camera(cls, value: str | None) -> str | None:
        if value == CAMERA:
            raise ValueError("which camera? camera:0 is the first of this computer")
        return value


class PupilCoreSettings(LiveSettings):
    """Options of ``rjepa stream pupil-core``."""

    address: Annotated[str, Field(json_schema_extra={"positional": True, "metavar": "HOST:PORT"})] = "127.0.0.1:50020"
    """Where Pupil Remote answers."""
    frame_format: Literal["jpeg", "yuv", "bgr", "gray"] = "jpeg"
    """What Capture is asked to publish frames as; bgr takes 20 times the network's load."""
    detector: Literal["auto", "ivt", "idt", "tracker"] = "auto"
    """Who finds fixations: ours by velocity, by dispersion or by what suits the rate (ivt from 100 Hz), or Capture."""


class LslSettings(LiveSettings):
    """Options of ``rjepa stream lsl``."""

    name: Annotated[str | None, Field(json_schema_extra={"metavar": "NAME"})] = None
    """Name of the stream; without it, any of --type."""
    type: Annotated[str, Field(json_schema_extra={"metavar": "TYPE"})] = "Gaze"
    """Type of the stream."""
    channels: Annotated[str | None, Field(json_schema_extra={"metavar": "x=A,y=B"})] = None
    """Channels by label or number from 0, with confidence=C if there is one; without it, by their usual labels."""
    gaze_unit: Literal["px", "norm", "deg"] | None = None
    """Unit of x and y: pixels, 0..1, or degrees from the centre; without it, by the stream's description."""
    gaze_frame: Annotated[str | None, Field(json_schema_extra={"metavar": "WxH"})] = None
    """Size in pixels of the picture that gaze in pixels refers to; without it, the video's own."""
    origin: Literal["top", "bottom"] | None = None
    """Whether y counts down from the top left or up from the bottom left; without it, bottom for norm_pos, else top."""
    detector: Literal["auto", "ivt", "idt"] = "auto"
    """How fixations are found: by velocity, by dispersion, or by what suits the sampling rate (ivt from 100 Hz)."""


class NeonSettings(LiveSettings):
    """Options of ``rjepa stream neon``."""

    address: Annotated[str | None, Field(json_schema_extra={"positional": True, "metavar": "HOST:PORT"})] = None
    """The phone's address as the Companion app tells it; without it, the first device found in the network."""
    detector: Literal["auto", "ivt", "idt", "tracker"] = "auto"
    """Who finds fixations: ours by velocity, by dispersion or by what suits the rate (ivt from 100 Hz), or they."""


class CameraSettings(LslSettings):
    """Options of ``rjepa stream camera``; those of LSL go with ``--gaze lsl``."""

    camera: Annotated[str, Field(json_schema_extra={"positional": True, "metavar": "N"})] = "0"
    """Number of the camera, or the URL of one in the network."""
    gaze: Literal["lsl", "pupil-core"] = "lsl"
    """Where the gaze comes from."""
    address: Annotated[str, Field(json_schema_extra={"metavar": "HOST:PORT"})] = "127.0.0.1:50020"
    """Where Pupil Remote answers, with --gaze pupil-core."""

    def of_gaze(self) -> LslSettings | PupilCoreSettings:
        """The same, as options of the gaze's own source. Raises :class:`OptionError` for what it has no use for."""
        kind = LslSettings if self.gaze == "lsl" else PupilCoreSettings
        heard = {*kind.model_fields, "camera", "gaze"} - {"video"} - ({"address"} if self.gaze == "lsl" else set())
        unheard = sorted(self.model_fields_set - heard)
        if unheard:
            named = ", ".join(f"--{name.replace('_', '-')}" for name in unheard)
            raise OptionError(f"{named} would go unheard: the video is camera {self.camera}, the gaze {self.gaze}'s")
        same = {name: value for name, value in self if name in kind.model_fields}
        return kind(**(same | {"video": f"{CAMERA}{self.camera}"}))


SETTINGS: dict[str, type[LiveSettings]] = {
    "pupil-core": PupilCoreSettings,
    "lsl": LslSettings,
    "neon": NeonSettings,
    "camera": CameraSettings,
}


def load_live(kind: str, words: list[str]) -> LiveSettings:
    """The options of ``rjepa stream <kind>``, one of :data:`LIVE_KINDS`. Raises as :func:`clients.settings.load`."""
    settings = load(SETTINGS[kind], words, f"rjepa stream {kind}", ABOUT[kind])
    return settings.of_gaze() if isinstance(settings, CameraSettings) else settings
