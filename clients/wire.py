"""The wire: every message between a client and the worker, as pure data.

No socket, clock or disk in here, so both sides of the wire (and a test) share it. A message is
multipart::

    frame 0   b"rjepa1"                 the protocol's version
    frame 1   the kind, ASCII           hello, welcome, fixation, ack, learned, resend, conflict, error
    frame 2   a JSON object, UTF-8      the fields of the model of that kind, below
    frame 3   the patch's bytes         fixation only

``encode`` turns a message into frames; ``decode`` turns frames into a message or raises
:class:`WireError`, whose ``code`` is one of :class:`ErrorCode` and goes back to the sender as it is.
Times are seconds, angles degrees, gaze is 0..1 of the frame with its origin at the top left.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from enum import Enum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

VERSION = b"rjepa1"
ID_PATTERN = r"^(?!\.)[A-Za-z0-9_.\-]{1,64}$"
PATCH_HEIGHT_PX = 50
PATCH_WIDTH_PX = 50
PATCH_DEGREES = 5.0
ENCODINGS = ("raw", "png", "jpeg")
MAX_FRAME_BYTES = 1 << 20
"""A frame above this is answered ``too_large``; above :data:`MAX_MESSAGE_BYTES` ZeroMQ cuts the connection."""
MAX_MESSAGE_BYTES = 16 << 20
MAX_FRAMES = 4
MAX_SEQ = 2**53 - 1
"""The largest integer every JSON reader keeps exactly."""

_ID = re.compile(ID_PATTERN)
_LOOK = struct.Struct("<4d")


class ErrorCode(str, Enum):
    """What an ``error`` message can say."""

    BAD_VERSION = "bad_version"
    BAD_MESSAGE = "bad_message"
    BAD_STREAM = "bad_stream"
    BAD_PATCH = "bad_patch"
    TOO_LARGE = "too_large"
    TOO_MANY = "too_many"
    UNAUTHORIZED = "unauthorized"
    HELLO_REQUIRED = "hello_required"
    FENCED = "fenced"
    STORAGE_FULL = "storage_full"
    STORAGE_FAILED = "storage_failed"


class WireError(Exception):
    """A message that can't be taken: the ``error`` to answer it with.

    ``stream`` and ``seq`` are filled in where the message still told them.
    """

    def __init__(self, code: ErrorCode, detail: str, stream: str | None = None, seq: int | None = None) -> None:
        super().__init__(f"{code.value}: {detail}")
        self.code = code
        self.detail = detail
        self.stream = stream
        self.seq = seq


Finite = Annotated[float, Field(allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Seq = Annotated[int, Field(ge=0, le=MAX_SEQ)]
SeqOrNone = Annotated[int, Field(ge=-1, le=MAX_SEQ)]
Epoch = Annotated[int, Field(ge=0, le=MAX_SEQ)]
StreamName = str


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Message(_Part):
    """One message; subclasses name their ``kind``."""

    kind: ClassVar[str]


class Gaze(_Part):
    """A point of the frame, as fractions of its width and height."""

    x: Fraction
    y: Fraction


class GazeDegrees(_Part):
    """A gaze direction in degrees of visual angle."""

    x: Finite
    y: Finite


class FrameDegrees(_Part):
    """The scene frame's size in degrees of visual angle."""

    width: Annotated[float, Field(gt=0.0, le=360.0, allow_inf_nan=False)]
    height: Annotated[float, Field(gt=0.0, le=360.0, allow_inf_nan=False)]


class PatchHeader(_Part):
    """What frame 3 holds. ``padded`` is the fraction that lay outside the frame."""

    encoding: Literal["raw", "png", "jpeg"]
    height: Annotated[int, Field(ge=1, le=1 << 16)]
    width: Annotated[int, Field(ge=1, le=1 << 16)]
    channels: Literal[3]
    color: Literal["rgb"]
    degrees: Annotated[float, Field(gt=0.0, le=180.0, allow_inf_nan=False)]
    padded: Fraction | None = None

    @classmethod
    def ours(cls, padded: float | None = None) -> PatchHeader:
        """Of a patch as the clients cut it: uint8 (50, 50, 3), RGB, row-major."""
        return cls(
            encoding="raw",
            height=PATCH_HEIGHT_PX,
            width=PATCH_WIDTH_PX,
            channels=3,
            color="rgb",
            degrees=PATCH_DEGREES,
            padded=padded,
        )


class SequenceMark(_Part):
    """The fixation that carries ``start: true`` begins a new sequence called ``id``."""

    id: Annotated[str, Field(min_length=1, max_length=256)]
    start: bool = False


class Dropped(_Part):
    """Fixations that a client found and had no room for, since it began at ``since`` (unix s, its clock)."""

    since: Finite
    spool_full: Annotated[int, Field(ge=1, le=MAX_SEQ)]


class Hello(Message):
    """A client claims a stream (no ``epoch``) or comes back to it (the epoch it was given)."""

    kind: ClassVar[str] = "hello"
    stream: StreamName
    notify: Literal["durable", "learned"]
    epoch: Epoch | None = None
    acked: SeqOrNone | None = None
    have_from: Seq | None = None
    dropped: Dropped | None = None


class PatchOffer(_Part):
    """The patches the worker takes."""

    height: int
    width: int
    channels: int
    encodings: list[str]
    degrees: float


class ModelOffer(_Part):
    """The learner behind the worker."""

    name: str
    embedding_size: int


class Welcome(Message):
    """``next_seq`` is the first seq not yet durable; everything below is acked by it."""

    kind: ClassVar[str] = "welcome"
    stream: StreamName
    epoch: Epoch
    next_seq: Seq
    patch: PatchOffer
    model: ModelOffer


class FixationMessage(Message):
    """One fixation; the patch's bytes travel as frame 3."""

    kind: ClassVar[str] = "fixation"
    stream: StreamName
    seq: Seq
    onset: Finite
    duration: Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
    gaze: Gaze
    gaze_deg: GazeDegrees | None = None
    frame_deg: FrameDegrees | None = None
    patch: PatchHeader
    sequence: SequenceMark | None = None


class Ack(Message):
    """Everything up to and including ``seq`` is durable; ``learned`` is the highest seq learned, or -1."""

    kind: ClassVar[str] = "ack"
    stream: StreamName
    seq: SeqOrNone
    learned: SeqOrNone


class Learned(Message):
    """One fixation was learned (or recorded as skipped). Best effort, to the stream's present owner."""

    kind: ClassVar[str] = "learned"
    stream: StreamName
    seq: Seq
    prediction_error: float | None
    position: int | None
    latency_ms: float
    skipped: str | None


class Resend(Message):
    """A hole was seen: send again from ``from_seq``."""

    kind: ClassVar[str] = "resend"
    stream: StreamName
    from_seq: Seq


class Conflict(Message):
    """``seq`` is held with other content; number anew from ``next_seq``."""

    kind: ClassVar[str] = "conflict"
    stream: StreamName
    seq: Seq
    next_seq: Seq


class Error(Message):
    """A message was not taken. ``code`` is one of :class:`ErrorCode`."""

    kind: ClassVar[str] = "error"
    code: str
    detail: str
    stream: str | None = None
    seq: int | None = None


KINDS: dict[str, type[Message]] = {
    m.kind: m for m in (Hello, Welcome, FixationMessage, Ack, Learned, Resend, Conflict, Error)
}
FROM_CLIENT: frozenset[str] = frozenset({"hello", "fixation"})


def check_stream_name(name: str) -> str:
    """Return ``name`` if it is a stream id (:data:`ID_PATTERN`); raise :class:`WireError` otherwise."""
    if not _ID.fullmatch(name):
        raise WireError(
            ErrorCode.BAD_STREAM,
            f"stream {name[:80]!r} is no id: 1 to 64 of A-Z a-z 0-9 _ . - and not starting with a dot",
        )
    return name


def encode(message: Message, patch: bytes | None = None) -> list[bytes]:
    """The frames of ``message``; ``patch`` is frame 3, where there is one."""
    body = message.model_dump_json(exclude_none=not isinstance(message, Learned)).encode()
    frames = [VERSION, message.kind.encode(), body]
    if patch is not None:
        frames.append(patch)
    return frames


def decode(frames: list[bytes], kinds: frozenset[str] | None = None) -> tuple[Message, bytes | None]:
    """The message in ``frames`` and its frame 3.

    ``kinds`` limits what is accepted (a worker takes :data:`FROM_CLIENT`). Raises :class:`WireError` with
    the code the contract names: too_large before anything is parsed, then bad_version, bad_message,
    bad_stream. The patch's bytes are not decoded here.
    """
    if (kinds is None or "fixation" in kinds) and (fixation := _fixation(frames)) is not None:
        return fixation, frames[3]
    largest = max(map(len, frames), default=0)
    if largest > MAX_FRAME_BYTES:
        raise WireError(ErrorCode.TOO_LARGE, f"a frame of {largest} bytes; at most {MAX_FRAME_BYTES} are taken")
    if not frames or frames[0] != VERSION:
        got = frames[0][:16] if frames else b""
        raise WireError(ErrorCode.BAD_VERSION, f"frame 0 is {got!r}; this side speaks {VERSION!r}")
    if len(frames) > MAX_FRAMES:
        raise WireError(ErrorCode.BAD_MESSAGE, f"more than {MAX_FRAMES} frames; no message has so many")
    if len(frames) < 3:
        raise WireError(ErrorCode.BAD_MESSAGE, f"{len(frames)} frames; version, kind and JSON are needed")
    kind = frames[1].decode("ascii", errors="replace")
    model = KINDS.get(kind)
    if model is None or (kinds is not None and kind not in kinds):
        raise WireError(ErrorCode.BAD_MESSAGE, f"unknown kind {kind[:40]!r}")
    body = _parse(frames[2])
    stream, seq = _told(body)
    wanted = 4 if model is FixationMessage else 3
    if len(frames) != wanted:
        raise WireError(ErrorCode.BAD_MESSAGE, f"{kind} has {len(frames)} frames; {wanted} are needed", stream, seq)
    if isinstance(body.get("stream"), str) and model is not Error:
        check_stream_name(body["stream"])
    try:
        message = model.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:80] or kind
        raise WireError(ErrorCode.BAD_MESSAGE, f"{kind}: {where}: {first['msg']}", stream, seq) from None
    return message, frames[3] if wanted == 4 else None


def digest(onset: float, duration: float, gaze: Gaze, patch: bytes) -> bytes:
    """What makes two fixations the same: 32 bytes over onset, duration, gaze and the bytes of frame 3."""
    found = hashlib.sha256(_LOOK.pack(onset, duration, gaze.x, gaze.y))
    found.update(patch)
    return found.digest()


def _fixation(frames: list[bytes]) -> FixationMessage | None:
    """A fixation that is as it should be, the short way; None where the long way has to say what it is."""
    if len(frames) != 4 or frames[1] != b"fixation" or frames[0] != VERSION:
        return None
    if len(frames[2]) > MAX_FRAME_BYTES or len(frames[3]) > MAX_FRAME_BYTES:
        return None
    try:
        message = FixationMessage.model_validate_json(frames[2])
    except ValidationError:
        return None
    return message if _ID.fullmatch(message.stream) else None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


_JSON = json.JSONDecoder(parse_constant=_refuse_constant)


def _parse(body: bytes) -> dict[str, Any]:
    try:
        value = _JSON.decode(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise WireError(ErrorCode.BAD_MESSAGE, f"frame 2 is not JSON in UTF-8: {str(error)[:120]}") from None
    if not isinstance(value, dict):
        raise WireError(ErrorCode.BAD_MESSAGE, "frame 2 is not a JSON object")
    return value


def _told(body: dict[str, Any]) -> tuple[str | None, int | None]:
    """The stream and seq of a message that may be otherwise wrong, to name them in the answer."""
    stream, seq = body.get("stream"), body.get("seq")
    named = stream if isinstance(stream, str) and _ID.fullmatch(stream) else None
    counted = seq if isinstance(seq, int) and not isinstance(seq, bool) and 0 <= seq <= MAX_SEQ else None
    return named, counted
