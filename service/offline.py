"""Patches from files, without a wire: to calibrate on, recordings to learn from, a scanpath over other video.

The one file of the service that may read the sources of clients/.
"""

from __future__ import annotations

import logging
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from clients.opened import open_recording
from clients.patches import NoPatch, cut
from clients.sample import sample_video
from clients.settings import ReadingSettings, RecordingSettings, add_flags, build
from clients.simulated import Observer
from clients.studyforrest import read_scanpath
from clients.units import MAX_DEG, FrameSize
from clients.video import Picture, Video
from service.errors import CalibrationSourceError, LearnRefused

PATCHES = 2000
FRAMES_PER_FILE = 200
SEEK_FRAMES = 500
"""Nearer frames than this are reached by decoding on, farther ones by seeking."""
FRAME_WIDTH_DEG = 30.0
"""How wide a frame is taken to be: a bare video does not say."""
PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
VIDEOS = {".mp4", ".avi", ".mov", ".mkv", ".m4v", ".webm", ".mpg", ".mpeg", ".mjpeg", ".wmv"}

log = logging.getLogger("rjepa.calibrate")


def calibration_patches(path: Path, *, seed: int, count: int = PATCHES) -> NDArray[np.uint8]:
    """``count`` patches, uint8 (count, 50, 50, 3) RGB, from random places of the videos and pictures under ``path``.

    A frame is taken to be 30 degrees wide. The same files and seed give the
    same patches. Raises :class:`CalibrationSourceError` where nothing can be read.
    """
    files = _files(path)
    generator = np.random.default_rng(seed)
    wanted = -(-count // len(files))
    patches: list[NDArray[np.uint8]] = []
    unreadable: list[str] = []
    for file in files:
        frames = list(_frames(file, generator, min(wanted, FRAMES_PER_FILE)))
        if not frames:
            unreadable.append(file.name)
        for number in range(wanted if frames else 0):
            patch = _patch(frames[number % len(frames)], generator)
            if patch is not None:
                patches.append(patch)
    if unreadable:
        log.warning("%d of %d files could not be read: %s", len(unreadable), len(files), ", ".join(unreadable[:5]))
    if not patches:
        raise CalibrationSourceError(
            f"--calibrate {path}: nothing can be seen in any of its {len(files)} files; name videos or pictures"
        )
    while len(patches) < count:
        patches.append(patches[int(generator.integers(len(patches)))])
    log.info(
        "calibrating on %d patches of %d files under %s, taking a frame to be %g degrees wide",
        count, len(files) - len(unreadable), path, FRAME_WIDTH_DEG,
    )  # fmt: skip
    chosen = generator.permutation(len(patches))[:count]
    return np.stack([patches[number] for number in chosen])


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise CalibrationSourceError(f"--calibrate {path}: no such file or folder; say synthetic or name another one")
    if path.is_file():
        return [path]
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in PICTURES | VIDEOS and file.is_file())
    if not found:
        known = " ".join(sorted(PICTURES | VIDEOS))
        raise CalibrationSourceError(f"--calibrate {path}: no video or picture in this folder (looked for {known})")
    return found


def _frames(file: Path, generator: np.random.Generator, count: int) -> Iterator[NDArray[np.uint8]]:
    """Up to ``count`` frames, BGR uint8; of a video those at random times."""
    if file.suffix.lower() in PICTURES:
        picture = cv2.imread(str(file), cv2.IMREAD_COLOR)
        if picture is not None:
            yield np.asarray(picture, dtype=np.uint8)
        return
    video = cv2.VideoCapture(str(file))
    try:
        length = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        chosen = generator.choice(length, min(count, length), replace=False).tolist() if length > 0 else []
        now = 0
        for at in sorted(chosen):
            if at - now > SEEK_FRAMES:
                video.set(cv2.CAP_PROP_POS_FRAMES, at)
                now = at
            while now < at and video.grab():
                now += 1
            read, frame = video.read()
            now += 1
            if read:
                yield np.asarray(frame, dtype=np.uint8)
    finally:
        video.release()


def _patch(frame: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8] | None:
    """A patch at a random place, cut as the clients cut theirs; None where it shows nothing."""
    height, width = frame.shape[:2]
    size = FrameSize(FRAME_WIDTH_DEG, min(MAX_DEG, FRAME_WIDTH_DEG * height / width))
    x, y = generator.uniform(0.0, 1.0, 2).tolist()
    return cut_or_none(frame, x, y, size)


@dataclass(frozen=True)
class Seen:
    """What a scanpath saw: N fixations in order."""

    patches: NDArray[np.uint8]
    """(N, 50, 50, 3) RGB."""
    gaze: NDArray[np.float64]
    """(N, 2): as a fraction of the frame, origin top left."""
    frame_deg: tuple[float, float]
    """The frame's width and height."""


SHOT_S = (3.0, 12.0)
"""How long a shot lasts, at least and at most."""


def scanpath_over(
    scanpath: Path, videos: Sequence[Path], *, seed: int, first: int = 0, count: int | None = None
) -> Seen:
    """``count`` fixations (one time through) of the tables at ``scanpath`` from ``first`` on, over other video.

    The scanpath begins again at its end, as one video does; of several, shots of 3 to 12 s follow one another, each of
    a random video from a random moment. The video fills the frame that the gaze was recorded in. Fixations that show
    nothing (off the frame, black) are left out. Raises SourceError where a file can't be read.
    """
    path = read_scanpath(scanpath)
    times, index = divmod(np.arange(first, first + (len(path) if count is None else count)), len(path))
    middle_ns = path.onset_ns + path.duration_ns // 2
    length_ns = int(path.onset_ns[-1] + path.duration_ns[-1])
    chosen, when_ns = _shots(middle_ns[index] + times * length_ns, videos, seed)
    patches: dict[int, NDArray[np.uint8]] = {}
    for number, file in enumerate(videos):
        own = np.flatnonzero(chosen == number)
        with Video(file) as video:
            for at in own[np.argsort(when_ns[own], kind="stable")].tolist():
                frame = video.nearest(int(when_ns[at]))
                if frame is not None:
                    patch = cut_or_none(frame.bgr, float(path.x[index[at]]), float(path.y[index[at]]), path.frame)
                    if patch is not None:
                        patches[at] = patch
    kept = sorted(patches)
    if not kept:
        raise CalibrationSourceError(f"{scanpath} over {', '.join(map(str, videos))}: no fixation shows anything")
    gaze = np.stack([path.x[index[kept]], path.y[index[kept]]], axis=1)
    return Seen(np.stack([patches[at] for at in kept]), gaze, (path.frame.width_deg, path.frame.height_deg))


def demo_video() -> Path:
    """The video of ``rjepa demo``. Raises ClientError where it is not installed."""
    return sample_video()


def observed(video: Path, count: int, *, seed: int) -> Seen:
    """``count`` fixations of the simulated observer of ``seed`` over ``video``, again and again, as the demo has them.

    A frame is taken to be 30 degrees wide. Raises SourceError where the video can't be read or shows nothing.
    """
    patches: list[NDArray[np.uint8]] = []
    gaze: list[tuple[float, float]] = []
    with Video(video) as frames:
        size = FrameSize(FRAME_WIDTH_DEG, FRAME_WIDTH_DEG * frames.height_px / frames.width_px)
        in_vain = 0
        for fixation, frame in Observer(frames, size, seed).look(0, None, loop=True):
            if len(patches) == count:
                break
            patch = cut_or_none(frame.bgr, fixation.x, fixation.y, size)
            in_vain = in_vain + 1 if patch is None else 0
            if in_vain > PATCHES:
                raise CalibrationSourceError(f"{video}: the observer finds nothing to see in it")
            if patch is not None:
                patches.append(patch)
                gaze.append((fixation.x, fixation.y))
    return Seen(np.stack(patches), np.array(gaze), (size.width_deg, size.height_deg))


def _shots(
    time_ns: NDArray[np.int64], videos: Sequence[Path], seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which video each fixation falls on, and when in it (ns)."""
    lengths = [_length_ns(file) for file in videos]
    if len(videos) == 1:
        return np.zeros(len(time_ns), np.int64), time_ns % lengths[0]
    random = np.random.default_rng(seed)
    chosen, when = np.zeros(len(time_ns), np.int64), np.zeros(len(time_ns), np.int64)
    video, offset, begun, ends = 0, 0, 0, -1
    for index, now in enumerate(time_ns.tolist()):
        if now >= ends:
            video = int(random.integers(len(videos)))
            offset, begun = int(random.integers(lengths[video])), now
            ends = now + round(random.uniform(*SHOT_S) * 1e9)
        chosen[index], when[index] = video, (offset + now - begun) % lengths[video]
    return chosen, when


def _length_ns(file: Path) -> int:
    with Video(file) as video:
        return max(frame.time_ns for frame in video.frames()) + video.period_ns


def frames_at(file: Path, shares: Sequence[float]) -> Iterator[NDArray[np.uint8]]:
    """The frame (BGR uint8) of ``file`` at each of ``shares`` (0 to 1, ascending) of its length; a picture has one.

    Raises SourceError where ``file`` can't be read.
    """
    if file.suffix.lower() in PICTURES:
        frame = Picture(file).nearest(0)
        yield from [frame.bgr] * len(shares) if frame is not None else []
        return
    length = _length_ns(file)
    with Video(file) as video:
        for share in shares:
            frame = video.nearest(int(share * (length - video.period_ns)))
            if frame is not None:
                yield frame.bgr


def stretches(scanpath: Path, length: int, count: int) -> tuple[list[NDArray[np.float64]], FrameSize]:
    """Gaze (``length`` x 2, fractions of the frame) of ``count`` stretches of fixations that follow one another in one
    run of the tables at ``scanpath``; and the frame.

    Fixations off the frame are passed over. Where the runs hold fewer, they are gone through again, as often as needed,
    each time from a little further on, so that no two stretches are the same. Raises SourceError where a file can't be
    read, :class:`CalibrationSourceError` where there are too few fixations for any number of passes.
    """
    path = read_scanpath(scanpath)
    gaze = np.stack([path.x, path.y], axis=1)
    on = ((gaze >= 0.0) & (gaze <= 1.0)).all(axis=1)
    runs = [gaze[on & (path.run == run)] for run in np.unique(path.run)]
    for passes in range(1, length + 1):
        found = [
            run[first : first + length]
            for number in range(passes)
            for run in runs
            for first in range(number * length // passes, len(run) - length + 1, length)
        ]
        if len(found) >= count:
            return found[:count], path.frame
    raise CalibrationSourceError(f"{scanpath} holds no {count} stretches of {length} fixations: name a longer scanpath")


def cut_or_none(frame: NDArray[np.uint8], x: float, y: float, size: FrameSize) -> NDArray[np.uint8] | None:
    """A patch (50, 50, 3) RGB as the clients cut it; None where there is none: off the frame, or black."""
    try:
        return cut(frame, x, y, size).rgb
    except NoPatch:
        return None


GAZE = {".csv", ".tsv", ".txt", ".mat", ".asc"}
RECORDING_OPTIONS = ("px_per_degree", *ReadingSettings.model_fields)
"""How a recording is read: options of ``rjepa stream recording``, here for every recording alike."""


def add_recording_options(parser: ArgumentParser) -> None:
    """:data:`RECORDING_OPTIONS` as flags."""
    add_flags(parser, RecordingSettings, RECORDING_OPTIONS)


@dataclass(frozen=True)
class Recording(Seen):
    """What the eye saw in one recording, as ``rjepa stream recording`` would send it."""

    name: str
    onset_s: NDArray[np.float64]
    """(N,): when each fixation began, in the recording's own clock."""
    duration_s: NDArray[np.float64]
    """(N,)"""
    dropped: dict[str, int]
    """Fixations that were found and show nothing, by reason: off_frame, no_frame, black."""
    notes: tuple[str, ...]
    """How it was read, for people."""


def recorded(video: Path, gaze: Path, options: Mapping[str, object]) -> tuple[Recording, Counter[str]]:
    """What the eye saw in one recording, as ``rjepa stream recording`` would send it; and what was dropped, by reason.

    ``options``: values of :data:`RECORDING_OPTIONS`, None for what is not said. Raises ClientError where the recording
    or an option can't be used, :class:`LearnRefused` where no fixation shows anything.
    """
    given = {name: value for name, value in options.items() if name in RECORDING_OPTIONS and value is not None}
    found = _see({**given, "video": video, "gaze": gaze}, "rjepa learn")
    return found, Counter(found.dropped)


def read_recording(path: str | Path, *, video: str | Path | None = None, **options: object) -> Recording:
    """One recording, read in this process: its fixations found, and of each the 5 degrees around it cut out.

    ``path``: a file or folder of any format that ``rjepa stream recording`` reads; ``video``: what was looked at, where
    the recording has none of its own. ``options``: that command's, by name (``px_per_degree=31.5``,
    ``screen_mm=(527, 296)``, ``detector="tracker"``). Raises ClientError where the recording or an option can't be
    used, :class:`LearnRefused` where no fixation shows anything.
    """
    given = {name: _as_typed(value) for name, value in options.items() if value is not None}
    unknown = set(given) - set(RECORDING_OPTIONS)
    if unknown:
        raise LearnRefused(f"no option {', '.join(sorted(unknown))}; there are: {', '.join(RECORDING_OPTIONS)}")
    parts = {"path": Path(path)} | ({} if video is None else {"video": Path(video)})
    return _see({**given, **parts}, "read_recording")


def _as_typed(value: object) -> object:
    """A number or a pair of numbers as the command line has it: 31.5, 527x296."""
    if isinstance(value, tuple | list):
        return "x".join(f"{number:g}" for number in value)
    return value if isinstance(value, bool) or not isinstance(value, int | float) else f"{value:g}"


def _see(given: Mapping[str, object], asked_by: str) -> Recording:
    settings = build(RecordingSettings, dict(given), {}, asked_by)
    patches: list[NDArray[np.uint8]] = []
    places: list[tuple[float, float]] = []
    times_ns: list[tuple[int, int]] = []
    dropped: Counter[str] = Counter()
    with open_recording(settings) as opened:
        for fixation, frame in opened.fixations():
            if frame is None:
                dropped["no_frame"] += 1
                continue
            try:
                patches.append(cut(frame.bgr, fixation.x, fixation.y, opened.size).rgb)
            except NoPatch as none:
                dropped[none.reason] += 1
                continue
            places.append((fixation.x, fixation.y))
            times_ns.append((fixation.onset_ns, fixation.duration_ns))
        name, notes, size = opened.name, opened.notes, opened.size
    if not patches:
        said = ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "no fixation was found"
        what = settings.gaze or settings.path
        over = "" if settings.video is None else f" over {settings.video}"
        raise LearnRefused(f"{what}{over}: nothing was seen ({said}); are the units and --px-per-degree right?")
    onset_s, duration_s = np.array(times_ns, np.int64).T / 1e9
    frame_deg = (size.width_deg, size.height_deg)
    return Recording(np.stack(patches), np.array(places), frame_deg, name, onset_s, duration_s, dict(dropped), notes)


def recordings_in(folder: Path) -> list[tuple[Path, Path]]:
    """(video, gaze) of every recording in ``folder``, by name: a gaze file beside the video or picture of its name.

    Raises :class:`LearnRefused` where there is none.
    """
    if not folder.is_dir():
        raise LearnRefused(f"--recordings {folder}: no such folder; name one, or a pair with --video and --gaze")
    files = sorted(file for file in folder.iterdir() if file.is_file())
    shown = {file.stem: file for file in files if file.suffix.lower() in PICTURES | VIDEOS}
    pairs = [(shown[file.stem], file) for file in files if file.suffix.lower() in GAZE and file.stem in shown]
    if not pairs:
        raise LearnRefused(
            f"--recordings {folder}: no gaze file ({' '.join(sorted(GAZE))}) with a video or picture of the same name "
            "beside it; name the pairs with --video and --gaze"
        )
    return pairs
