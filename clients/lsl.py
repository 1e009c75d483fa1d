"""Gaze from the Lab Streaming Layer: a stream found by its type or name, read by its own description.

What the channels are is told by their labels (norm_pos_x, x, gaze_x, left_gaze_x ...) and units. Times are LSL's
own, moved to this computer's LSL clock by its time correction and by nothing else. A stream that is lost is looked
for until it is there again.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from clients.errors import OptionError, SourceError, UnitsUnknown
from clients.feed import Feed
from clients.fixations import Sample
from clients.live_settings import LslSettings
from clients.optics import Optics
from clients.units import parse_pair
from clients.video import SECOND_NS

GazeUnit = Literal["px", "norm", "deg"]
Origin = Literal["top", "bottom"]
UNITS: dict[GazeUnit, tuple[str, ...]] = {
    "px": ("px", "pixel", "pixels"),
    "norm": ("norm", "normalized", "normalised", "normalized_pixels", "fraction"),
    "deg": ("deg", "degree", "degrees", "degrees of visual angle", "dva"),
}
X_LABELS = (
    r"norm_pos_x",
    r"(gaze_?)?(pos_?|point_?)?x",
    r"(left|right|l|r)_(gaze_?)?(pos_?|point_?)?x",
    r"(gaze_?)?(pos_?|point_?)?x_(left|right|l|r)",
)
FIND_S = 1.0
OPEN_S = 5.0
SILENT_S = 5.0
"""Without a sample for so long it is asked whether the stream is still there."""
CORRECT_EVERY_S = 5.0
DRIFT_S = 0.005
"""A time correction that changed by more since the last one is counted."""
BUFFER_S = 60
MOST = 1024


@dataclass(frozen=True)
class Layout:
    """Which channel is what, and in what unit."""

    x: int
    y: int
    confidence: int | None
    unit: GazeUnit
    origin: Origin

    def words(self) -> str:
        """For people."""
        told = "without a confidence" if self.confidence is None else f"confidence in channel {self.confidence}"
        return f"gaze in channels {self.x} and {self.y} in {self.unit}, origin {self.origin} left, {told}"


def parse_channels(text: str | None) -> dict[str, str]:
    """``x=A,y=B`` as a dict. Raises :class:`OptionError`."""
    found = {}
    for part in text.split(",") if text else []:
        name, equals, channel = (word.strip() for word in part.partition("="))
        if not equals or name not in ("x", "y", "confidence") or not channel:
            raise OptionError(f"--channels {part.strip()!r}: x=LABEL,y=LABEL and perhaps confidence=LABEL are wanted")
        found[name] = channel
    if found and not {"x", "y"} <= set(found):
        raise OptionError(f"--channels {text}: both x and y are wanted")
    return found


def layout_of(labels: Sequence[str], units: Sequence[str], settings: LslSettings) -> Layout:
    """What the channels are. Raises :class:`SourceError` with what is there, :class:`UnitsUnknown` without a unit."""
    plain = [label.strip().lower().replace(" ", "_") for label in labels]
    named = parse_channels(settings.channels)
    chosen = {name: _channel(plain, channel) for name, channel in named.items()} if named else _usual(plain)
    unit = settings.gaze_unit or _unit(units[chosen["x"]], plain[chosen["x"]])
    origin: Origin = settings.origin or ("bottom" if "norm_pos" in plain[chosen["y"]] else "top")
    return Layout(chosen["x"], chosen["y"], chosen.get("confidence"), unit, origin)


def _channel(plain: Sequence[str], channel: str) -> int:
    wanted = channel.lower().replace(" ", "_")
    if wanted in plain:
        return plain.index(wanted)
    if channel.isdigit() and int(channel) < len(plain):
        return int(channel)
    raise SourceError(f"the LSL stream has no channel {channel!r}; it has: {', '.join(plain)}")


def _usual(plain: Sequence[str]) -> dict[str, int]:
    for pattern in X_LABELS:
        for x, label in enumerate(plain):
            if re.fullmatch(pattern, label):
                head, _, tail = label.rpartition("x")
                if f"{head}y{tail}" in plain:
                    found = {"x": x, "y": plain.index(f"{head}y{tail}")}
                    return found | ({"confidence": plain.index("confidence")} if "confidence" in plain else {})
    raise SourceError(
        f"no channel of the LSL stream is labelled as gaze; it has: {', '.join(plain) or 'no labels'}. "
        "Say which is which with --channels x=LABEL,y=LABEL (or their numbers, from 0)"
    )


def _unit(told: str, label: str) -> GazeUnit:
    for unit, names in UNITS.items():
        if told.strip().lower() in names:
            return unit
    if "norm" in label:
        return "norm"
    raise UnitsUnknown(
        f"the LSL stream says no unit of its channel {label!r} that is known (it says {told!r}); "
        "give --gaze-unit px, norm or deg"
    )


class Lsl:
    """The gaze stream that ``settings`` name."""

    def __init__(self, settings: LslSettings, optics: Optics) -> None:
        try:
            import pylsl
        except ModuleNotFoundError:
            raise SourceError("reading LSL needs pylsl: pip install 'rjepa[lsl]'") from None
        except RuntimeError as error:  # pylsl without its library
            raise SourceError(f"LSL's library can't be loaded: {str(error).splitlines()[0]}") from None
        parse_channels(settings.channels)
        self._lsl: Any = pylsl
        self._settings = settings
        self._optics = optics
        self._frame_px: tuple[float, float] | None = None
        if settings.gaze_frame is not None:
            width, height = parse_pair(settings.gaze_frame, "--gaze-frame")
            if height is None:
                raise OptionError(f"--gaze-frame {settings.gaze_frame!r}: width and height are wanted, like 1920x1080")
            self._frame_px = width, height
        self._correction_s: float | None = None

    def now_ns(self) -> int | None:
        """See :class:`clients.feed.Source`: LSL's clock on this computer."""
        return round(float(self._lsl.local_clock()) * SECOND_NS)

    def words(self) -> str:
        """See :class:`clients.feed.Source`."""
        if self._correction_s is None:
            return f"LSL stream {self._wanted()}: not found"
        return f"LSL stream {self._wanted()}: time correction {self._correction_s * 1000:+.2f} ms"

    def run(self, feed: Feed, stop: threading.Event) -> None:
        """See :class:`clients.feed.Source`."""
        while not stop.is_set():
            info = self._find(feed, stop)
            if info is None:
                return
            # recover=True would hide that the stream was lost.
            inlet = self._lsl.StreamInlet(info, max_buflen=BUFFER_S, recover=False)
            try:
                layout = self._open(inlet, feed)
                self._pull(inlet, layout, info.uid(), feed, stop)
            except (self._lsl.util.LostError, self._lsl.util.TimeoutError, TimeoutError):
                feed.count("stream_lost")
                feed.say(f"LSL stream {self._wanted()} is lost; looking for it")
            finally:
                inlet.close_stream()

    def _wanted(self) -> str:
        return f"{self._settings.name!r}" if self._settings.name else f"of type {self._settings.type!r}"

    def _find(self, feed: Feed, stop: threading.Event) -> Any | None:
        """The stream, once it is there; None when it is time to stop."""
        begin_s, hinted = time.monotonic(), False
        by = ("name", self._settings.name) if self._settings.name else ("type", self._settings.type)
        while not stop.is_set():
            found = self._lsl.resolve_byprop(*by, minimum=1, timeout=FIND_S)
            if found:
                if len(found) > 1:
                    others = ", ".join(sorted(repr(one.name()) for one in found))
                    feed.say(f"more than one LSL stream {self._wanted()}: {others}; say which with --name")
                return min(found, key=lambda one: str(one.name()))
            if not hinted and time.monotonic() - begin_s >= FIND_S:
                hinted = True
                feed.say(
                    f"no LSL stream {self._wanted()} in the network yet: is it switched on in the tracker's program, "
                    "and does the firewall let LSL's ports (16571 to 16604) through? Looking on"
                )
        return None

    def _open(self, inlet: Any, feed: Feed) -> Layout:
        """Read the description and open the stream. Raises LSL's own errors, or ours for what it is."""
        info = inlet.info(timeout=OPEN_S)
        if info.channel_format() == self._lsl.cf_string:
            raise SourceError(f"LSL stream {info.name()!r} carries text, not gaze; name another with --name")
        labels, units = _described(info)
        layout = layout_of(labels, units, self._settings)
        inlet.open_stream(timeout=OPEN_S)
        self._correction_s = inlet.time_correction(timeout=OPEN_S)
        rate = f"{info.nominal_srate():g} Hz" if info.nominal_srate() else "irregular"
        feed.say(
            f"LSL stream {info.name()!r} on {info.hostname()}, {rate}: {layout.words()}; "
            f"time correction {self._correction_s * 1000:+.2f} ms"
        )
        return layout

    def _pull(self, inlet: Any, layout: Layout, uid: str, feed: Feed, stop: threading.Event) -> None:
        """Hand on samples until the stop. Raises LostError."""
        heard_s = corrected_s = time.monotonic()
        while not stop.is_set():
            first, stamp = inlet.pull_sample(timeout=0.1)
            now_s = time.monotonic()
            if first is None:
                if now_s - heard_s > SILENT_S:
                    if not self._lsl.resolve_byprop("uid", uid, minimum=1, timeout=FIND_S):
                        raise TimeoutError
                    heard_s = time.monotonic()
                continue
            heard_s = now_s
            if now_s - corrected_s > CORRECT_EVERY_S:
                before_s, corrected_s = self._correction_s or 0.0, now_s
                self._correction_s = float(inlet.time_correction(timeout=OPEN_S))
                if abs(self._correction_s - before_s) > DRIFT_S:
                    feed.count("clock_drift")
            more, stamps = inlet.pull_chunk(timeout=0.0, max_samples=MOST)
            rows = zip([first, *more], [stamp, *stamps], strict=True)
            feed.gaze(sample for row in rows if (sample := self._sample(*row, layout, feed)) is not None)

    def _sample(self, row: Sequence[float], stamp: float, layout: Layout, feed: Feed) -> Sample | None:
        time_ns = round((stamp + (self._correction_s or 0.0)) * SECOND_NS)
        x, y = float(row[layout.x]), float(row[layout.y])
        confidence = 1.0 if layout.confidence is None else float(row[layout.confidence])
        if x == 0.0 and y == 0.0:
            return Sample(time_ns, math.nan, math.nan, confidence)
        size_px = feed.shown.size_px()
        if layout.unit == "norm":
            return Sample(time_ns, x, 1.0 - y if layout.origin == "bottom" else y, confidence)
        if size_px is None:
            feed.count("gaze_before_video")
            return None
        if layout.unit == "px":
            width_px, height_px = self._frame_px or size_px
            x, y = x / width_px, y / height_px
            return Sample(time_ns, x, 1.0 - y if layout.origin == "bottom" else y, confidence)
        size = self._optics.size(size_px)
        down = -y if layout.origin == "bottom" else y
        return Sample(time_ns, x / size.width_deg + 0.5, down / size.height_deg + 0.5, confidence)


def _described(info: Any) -> tuple[list[str], list[str]]:
    """Labels and units of the channels, empty where the description has none."""
    labels, units = [], []
    channel = info.desc().child("channels").child("channel")
    for _ in range(info.channel_count()):
        labels.append(channel.child_value("label") or "")
        units.append(channel.child_value("unit") or "")
        channel = channel.next_sibling("channel")
    return labels, units
