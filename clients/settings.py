"""Every option of ``rjepa stream`` and ``rjepa doctor``, declared once: flags, help and bounds come from the fields.

A flag goes before the environment: RJEPA_INGEST, RJEPA_SPOOL, RJEPA_STREAM_KEY and RJEPA_STREAM_PAIR; both go
before what a pair file says.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from clients.errors import OptionError
from clients.pace import parse_speed
from clients.units import parse_pair

ENVIRONMENT = {
    "ingest": "RJEPA_INGEST",
    "spool": "RJEPA_SPOOL",
    "key": "RJEPA_STREAM_KEY",
    "pair": "RJEPA_STREAM_PAIR",
}


class Declared(BaseModel):
    """Options, each a field; the text below it is its help."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)


class ClientSettings(Declared):
    """Options of everything that speaks to a worker."""

    ingest: Annotated[str, Field(json_schema_extra={"metavar": "ADDRESS"})] = "tcp://127.0.0.1:5555"
    """Where the worker takes fixations."""
    stream: Annotated[str | None, Field(json_schema_extra={"metavar": "NAME"})] = None
    """Name of the stream; without it, made from the source."""
    key: Annotated[Path | None, Field(json_schema_extra={"metavar": "FILE"})] = None
    """This client's key file, made by rjepa keys client, for a worker that asks for keys."""
    pair: Annotated[Path | None, Field(json_schema_extra={"metavar": "FILE"})] = None
    """This computer's pair file, made by rjepa pair: the worker's address and this client's key in one."""
    px_per_degree: Annotated[str | None, Field(json_schema_extra={"metavar": "X"})] = None
    """Pixels of the video in one degree of visual angle at its centre; XxY where they differ."""

    @field_validator("px_per_degree")
    @classmethod
    def _pair(cls, value: str | None) -> str | None:
        if value is not None:
            parse_pair(value, "--px-per-degree")
        return value


class StreamSettings(ClientSettings):
    """Options common to every stream."""

    speed: Annotated[str, Field(json_schema_extra={"metavar": "N"})] = "1"
    """1 is real pace, N so many times that, max as fast as it goes."""
    spool: Annotated[Path | None, Field(json_schema_extra={"metavar": "DIR"})] = None
    """Folder where fixations are kept until the worker has them; without it, one of this user for worker and stream."""
    start: Annotated[float, Field(ge=0.0, json_schema_extra={"metavar": "S"})] = 0.0
    """Begin S seconds into the source."""
    end: Annotated[float | None, Field(gt=0.0, json_schema_extra={"metavar": "S"})] = None
    """End S seconds into the source."""
    summary: Annotated[Path | None, Field(json_schema_extra={"metavar": "FILE"})] = None
    """Write found, sent, acked, learned, padded and dropped to FILE, as JSON."""
    wait: bool = True
    """At the end, wait until everything is learned; --no-wait: only until it is durable."""
    connect_within: Annotated[float, Field(gt=0.0, json_schema_extra={"metavar": "S"})] = 120.0
    """Give up if no worker has answered after S seconds; a stream without an end goes on trying."""

    @field_validator("summary")
    @classmethod
    def _can_be_made(cls, value: Path | None) -> Path | None:
        if value is not None and not value.parent.is_dir():
            raise ValueError(f"there is no folder {value.parent}")
        return value

    @field_validator("end")
    @classmethod
    def _after_start(cls, value: float | None, info: ValidationInfo) -> float | None:
        start = info.data.get("start", 0.0)
        if value is not None and value <= start:
            raise ValueError(f"it must lie after --start, which is {start:g}")
        return value

    @field_validator("speed")
    @classmethod
    def _speed(cls, value: str) -> str:
        parse_speed(value)
        return value


RecordingFormat = Literal[
    "pupil-player", "neon", "neon-export", "eyelink", "bids", "tobii", "studyforrest", "andersson", "table"
]
"""The formats of recordings, as clients/formats.py reads them."""


class ReadingSettings(Declared):
    """How a recording is read: of ``rjepa stream recording``, and of ``rjepa learn`` for every recording alike."""

    format: RecordingFormat | None = None
    """Read it as this format; without it, the format is recognised."""
    eye: Literal["left", "right"] | None = None
    """Which eye, where both were recorded apart; without it, the one that was lost less often."""
    columns: Annotated[str | None, Field(json_schema_extra={"metavar": "timestamp=A,x=B,y=C"})] = None
    """Columns of the table by name, with confidence=D if there is one; without it, by the header's usual names."""
    time_unit: Literal["s", "ms", "us", "ns"] | None = None
    """Unit of the table's times; without it, by the header or their steps."""
    gaze_unit: Literal["px", "norm", "deg"] | None = None
    """Unit of x and y: pixels, 0..1, or degrees from the centre; without it, by the header or their size."""
    gaze_frame: Annotated[str | None, Field(json_schema_extra={"metavar": "WxH"})] = None
    """Size in pixels of the picture that gaze in pixels refers to; without it, the video's own."""
    origin: Literal["top", "bottom"] | None = None
    """Whether y counts down from the top left or up from the bottom left; without it, bottom for norm_pos, else top."""
    video_start: Annotated[float | None, Field(json_schema_extra={"metavar": "S"})] = None
    """Time of the video's first frame in the gaze's clock, in seconds; without it, that of the first sample."""
    video_message: Annotated[str | None, Field(json_schema_extra={"metavar": "TEXT"})] = None
    """The video began at the first message with TEXT in it, that the experiment put into the recording."""
    video_loop: bool = False
    """Begin the video again at its end, under gaze that goes on."""
    screen_mm: Annotated[str | None, Field(json_schema_extra={"metavar": "WxH"})] = None
    """Size of the picture as it was shown on the screen, in mm; with --distance-mm, instead of --px-per-degree."""
    distance_mm: Annotated[float | None, Field(gt=0.0, json_schema_extra={"metavar": "D"})] = None
    """Distance from the eye to the screen, in mm."""
    detector: Literal["auto", "ivt", "idt", "tracker"] = "auto"
    """How fixations are found: by velocity, dispersion, what suits the sampling rate, or as the tracker found them."""
    min_confidence: Annotated[float, Field(ge=0.0, le=1.0, json_schema_extra={"metavar": "C"})] = 0.6
    """Samples less confident than C count as lost."""


class RecordingSettings(ReadingSettings, StreamSettings):
    """Options of ``rjepa stream recording``."""

    path: Annotated[Path | None, Field(json_schema_extra={"positional": True, "metavar": "PATH"})] = None
    """The recording, a file or a folder; or give its parts with --video and --gaze."""
    video: Annotated[Path | None, Field(json_schema_extra={"metavar": "FILE"})] = None
    """What was looked at: a video, or a picture; without it, the recording's own video."""
    gaze: Annotated[Path | None, Field(json_schema_extra={"metavar": "FILE"})] = None
    """Gaze without its video: the same as PATH."""
    loop: bool = False
    """Begin the recording again at its end, as a new sequence, until stopped."""


class SimulatedSettings(StreamSettings):
    """Options of ``rjepa stream simulated``."""

    video: Annotated[str, Field(json_schema_extra={"positional": True, "metavar": "VIDEO"})] = "sample"
    """Video to look about: a file, or sample, which is carried by the extra rjepa[sample]."""
    fixations: Annotated[int | None, Field(ge=1, json_schema_extra={"metavar": "N"})] = None
    """End after N fixations were sent, with as many passes over the video as that takes; without it, after one pass."""
    loop: bool = False
    """Begin the video again at its end, until stopped."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1, json_schema_extra={"metavar": "N"})] = 0
    """Seed of the observer: the same video and seed give the same fixations."""
    frame_degrees: Annotated[float, Field(gt=0.0, le=360.0, json_schema_extra={"metavar": "W"})] = 30.0
    """Width of the video in degrees of visual angle, where --px-per-degree is not given."""


class DoctorSettings(ClientSettings):
    """Options of ``rjepa doctor``."""

    stream: Annotated[str | None, Field(json_schema_extra={"metavar": "NAME"})] = None
    """Ask whether this computer may write stream NAME; without it, one that its pair file allows."""
    px_per_degree: Annotated[str | None, Field(json_schema_extra={"metavar": "X"})] = None
    """Pixels of the frame in one degree of visual angle at its centre; XxY where they differ."""
    capture: Annotated[str, Field(json_schema_extra={"metavar": "HOST:PORT"})] = "127.0.0.1:50020"
    """Where Pupil Capture's Pupil Remote listens."""
    cameras: Annotated[int, Field(ge=0, le=16, json_schema_extra={"metavar": "N"})] = 4
    """Try the first N cameras of this computer; 0 leaves them alone (their lights stay off)."""
    video: Annotated[Path | None, Field(json_schema_extra={"metavar": "FILE"})] = None
    """Make the picture of this video's (or picture's) first frame instead of what Capture or a camera shows."""
    gaze: Annotated[str | None, Field(json_schema_extra={"metavar": "X,Y"})] = None
    """Where on that frame the gaze is, as fractions from its top left; without it, Capture's, else the centre."""
    picture: Annotated[Path | None, Field(json_schema_extra={"metavar": "FILE"})] = None
    """Write a picture (.png): the frame with the gaze point on it, and the patch of 5 degrees cut there."""
    within: Annotated[float, Field(gt=0.0, le=60.0, json_schema_extra={"metavar": "S"})] = 3.0
    """Give each of them S seconds to answer."""

    @field_validator("gaze")
    @classmethod
    def _gaze(cls, value: str | None) -> str | None:
        if value is not None:
            parse_point(value)
        return value


def parse_point(text: str) -> tuple[float, float]:
    """``X,Y``, both in 0..1. Raises :class:`OptionError`."""
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        x = y = math.nan
    if not (0.0 <= x <= 1.0 and 0.0 <= y <= 1.0):
        raise OptionError(f"--gaze {text!r}: two fractions of the frame, each 0 to 1, are wanted, like 0.5,0.25")
    return x, y


Settings = TypeVar("Settings", bound=ClientSettings)


def load(kind: type[Settings], argv: list[str], prog: str, about: str) -> Settings:
    """The options of one command. Raises :class:`OptionError` with one line; ``--help`` exits."""
    parser = _Parser(
        prog=prog,
        description=about,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"By environment: {', '.join(f'{v} for --{k}' for k, v in _variables(kind))}; a flag goes first.",
    )
    common = (ReadingSettings.model_fields, StreamSettings.model_fields)
    add_flags(parser, kind, sorted(kind.model_fields, key=lambda name: [name in of for of in common[::-1]]))
    flags = {name: value for name, value in vars(parser.parse_args(argv)).items() if value is not None}
    return paired(build(kind, flags, _environment(os.environ, kind), prog))


def add_flags(parser: argparse.ArgumentParser, kind: type[Declared], names: Iterable[str]) -> None:
    """The flags (or positions) of the fields ``names`` of ``kind``; what is not given is None."""
    for name in names:
        _add(parser, name, kind.model_fields[name])


def build(kind: type[Settings], flags: Mapping[str, Any], environment: Mapping[str, str], prog: str) -> Settings:
    """Settings from what was given. Raises :class:`OptionError` with one line: which, and what is wrong with it."""
    try:
        return kind(**(dict(environment) | dict(flags)))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]) if first["loc"] else "options"
        source = f"--{name.replace('_', '-')}" if name in flags else ENVIRONMENT.get(name, name)
        raise OptionError(f"{source}: {first['msg']} (got {str(first['input'])[:80]!r}); see {prog} --help") from None


def paired(settings: Settings) -> Settings:
    """``settings`` with what its pair file says, where nothing else was given. Raises KeyRefused."""
    if settings.pair is None:
        return settings
    from clients.pairing import read_pairing  # with it comes zmq, which --help does without

    found = read_pairing(settings.pair)
    told = {"ingest": found.ingest, "key": settings.pair, "stream": found.only_stream()}
    return settings.model_copy(update={k: v for k, v in told.items() if k not in settings.model_fields_set})


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as an exception."""

    def error(self, message: str) -> NoReturn:
        raise OptionError(f"{message}; see {self.prog} --help")


def _variables(kind: type[ClientSettings]) -> list[tuple[str, str]]:
    """Those of :data:`ENVIRONMENT` that ``kind`` has."""
    return [(name, variable) for name, variable in ENVIRONMENT.items() if name in kind.model_fields]


def _environment(environment: Mapping[str, str], kind: type[ClientSettings]) -> dict[str, str]:
    return {name: environment[variable] for name, variable in _variables(kind) if environment.get(variable)}


def _add(parser: argparse.ArgumentParser, name: str, field: Any) -> None:
    """The flag (or position) of one field."""
    extra = field.json_schema_extra or {}
    described = field.description.replace("%", "%%")
    help_text = described if field.default in (None, False, True) else f"{described} (default: {field.default})"
    options: dict[str, Any] = {"help": help_text, "default": None}
    if extra.get("positional"):
        parser.add_argument(name, nargs="?", metavar=extra["metavar"], **options)
        return
    choices = _choices(field.annotation)
    if field.annotation is bool:
        options["action"] = argparse.BooleanOptionalAction if field.default else "store_true"
    elif choices:
        options["choices"] = choices
    else:
        options["metavar"] = extra.get("metavar")
    parser.add_argument(f"--{name.replace('_', '-')}", **options)


def _choices(annotation: Any) -> tuple[str, ...]:
    """The values of a Literal, also of ``Literal | None``; nothing for any other type."""
    values = [value for part in (annotation, *get_args(annotation)) for value in get_args(part)]
    return tuple(value for value in values if isinstance(value, str))
