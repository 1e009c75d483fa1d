"""EyeLink recordings as text: an .asc file, made from an .edf by SR Research's edf2asc.

Samples: time (ms), x, y and pupil of one eye or of both, '.' where lost; px of GAZE_COORDS, origin top left. EFIX
events: eye, first and last time, then the place; where the events are in HREF, the gaze in px follows them. MSG: what
the experiment put in. The line END tells the resolution (RES, px per degree), by the screen's size and distance as the
tracker was told them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clients.errors import OptionError, SourceError
from clients.fixations import Fixation
from clients.gaze import GazeTrack
from clients.recorded import Asked, Format, Recorded
from clients.tables import header_of, to_float
from clients.told import placed
from clients.units import FrameSize, from_px_per_degree

MS_NS = 1_000_000
EYES = {"LEFT": "L", "RIGHT": "R"}


@dataclass
class _Asc:
    """What stands in the file. Samples are (time ms, x, y) by eye; a number that is not there is NaN."""

    samples: dict[str, list[tuple[float, float, float]]] = field(default_factory=lambda: {"L": [], "R": []})
    fixations: dict[str, list[Fixation]] = field(default_factory=lambda: {"L": [], "R": []})
    messages: list[tuple[int, str]] = field(default_factory=list)
    coordinates: tuple[float, ...] | None = None
    resolutions: list[tuple[float, float]] = field(default_factory=list)


def read(path: Path, asked: Asked) -> Recorded:
    """The recording in the file ``path``, of one eye. Raises :class:`SourceError`."""
    asc = _parse(path)
    eye = _eye(path, asc, asked.settings.eye)
    size_px = asked.gaze_px or _size(path, asc)
    table = np.array(asc.samples[eye], np.float64).reshape(-1, 3)
    time_ns = np.round(table[:, 0] * MS_NS).astype(np.int64)
    x, y = table[:, 1] / size_px[0], table[:, 2] / size_px[1]
    track = GazeTrack(path, time_ns, np.ones(len(x), np.bool_), x, y, np.ones(len(x)))
    told = [Fixation(f.onset_ns, f.end_ns, f.x / size_px[0], f.y / size_px[1]) for f in asc.fixations[eye]]
    frame, why = _frame(asc, size_px)
    notes = (f"{'left' if eye == 'L' else 'right'} eye, in px of {size_px[0]:g} x {size_px[1]:g}", *why)
    return Recorded(track, placed(track, told) if told else None, frame, tuple(asc.messages), notes)


def _fits(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() == ".asc" and bool(header_of(path))


def _parse(path: Path) -> _Asc:
    asc, eyes, kind = _Asc(), "", "GAZE"
    for words in _lines(path):
        first = words[0]
        if first[0].isdigit():
            if kind != "GAZE":
                raise SourceError(
                    f"{path} has its samples in {kind}, not in gaze px: convert the .edf again with gaze samples"
                )
            _sample(asc, words, eyes)
        elif first == "MSG" and len(words) > 2:
            _message(asc, words)
        elif first == "SAMPLES" and len(words) > 1:
            kind, eyes = words[1], "".join(EYES[word] for word in words if word in EYES)
        elif first == "START":
            eyes = "".join(EYES[word] for word in words if word in EYES) or eyes
        elif first == "EFIX" and len(words) >= 7:
            _fixation(asc, words)
        elif first == "END" and "RES" in words:
            across, down = (to_float(word) for word in [*words[words.index("RES") + 1 :], "", ""][:2])
            if across > 0 and down > 0:
                asc.resolutions.append((across, down))
    return asc


def _lines(path: Path) -> Iterator[list[str]]:
    """The words of every line that has any."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                words = line.split()
                if words:
                    yield words
    except OSError as error:
        raise SourceError(f"{path} can't be read: {error.strerror}") from None


def _sample(asc: _Asc, words: list[str], eyes: str) -> None:
    time_ms = to_float(words[0])
    if math.isnan(time_ms) or not eyes:
        return
    for at, eye in enumerate(eyes):
        x, y = (to_float(word) for word in [*words[1 + 3 * at : 3 + 3 * at], "", ""][:2])
        asc.samples[eye].append((time_ms, x, y))


def _message(asc: _Asc, words: list[str]) -> None:
    time_ms, text = to_float(words[1]), " ".join(words[2:])
    if math.isnan(time_ms):
        return
    asc.messages.append((round(time_ms * MS_NS), text))
    if re.match(r"(GAZE|DISPLAY)_COORDS\b", text) and (asc.coordinates is None or text.startswith("GAZE")):
        numbers = tuple(to_float(word) for word in words[3:7])
        if len(numbers) == 4 and not any(map(math.isnan, numbers)):
            asc.coordinates = numbers


def _fixation(asc: _Asc, words: list[str]) -> None:
    """EFIX eye begin end duration x y pupil, and with HREF events: href x, href y, pupil, x, y, pupil."""
    begin_ms, end_ms = to_float(words[2]), to_float(words[3])
    place = words[8:10] if len(words) >= 10 else words[5:7]
    if words[1] in asc.fixations and not (math.isnan(begin_ms) or math.isnan(end_ms)):
        x, y = (to_float(word) for word in place)
        asc.fixations[words[1]].append(Fixation(round(begin_ms * MS_NS), round(end_ms * MS_NS), x, y))


def _eye(path: Path, asc: _Asc, wanted: str | None) -> str:
    """The eye asked for, else the one that was lost less often; the left one where both are as good."""
    held = {eye: sum(not math.isnan(x) for _, x, _ in samples) for eye, samples in asc.samples.items()}
    if wanted is None:
        eye = max(held, key=lambda name: held[name])
        if held[eye] == 0:
            raise SourceError(f"{path} has no gaze samples: was it converted with events only? Convert it with samples")
        return eye
    if held[wanted[0].upper()] == 0:
        raise OptionError(f"--eye {wanted}: {path} has no samples of that eye")
    return wanted[0].upper()


def _size(path: Path, asc: _Asc) -> tuple[float, float]:
    if asc.coordinates is None:
        raise SourceError(f"{path} has no GAZE_COORDS: give the screen's size in pixels with --gaze-frame WIDTHxHEIGHT")
    left, top, right, bottom = asc.coordinates
    # Scripts write the last pixel's number (1279) or the width (1280); a screen's width is even.
    width, height = ((span + 1 if span % 2 else span) for span in (right - left, bottom - top))
    if width <= 0 or height <= 0:
        raise SourceError(f"{path}: GAZE_COORDS {asc.coordinates} is no screen; give --gaze-frame WIDTHxHEIGHT")
    return width, height


def _frame(asc: _Asc, size_px: tuple[float, float]) -> tuple[FrameSize | None, tuple[str, ...]]:
    if not asc.resolutions:
        return None, ()
    table: NDArray[np.float64] = np.array(asc.resolutions)
    across, down = (float(np.median(table[:, axis])) for axis in (0, 1))
    frame = from_px_per_degree(round(size_px[0]), round(size_px[1]), across, down)
    return frame, (f"{across:.1f} x {down:.1f} px of the screen in a degree, as the tracker was told (RES)",)


FORMAT = Format("eyelink", "EyeLink .asc", "a file NAME.asc", _fits, read, takes=("eye", "gaze_frame"))
